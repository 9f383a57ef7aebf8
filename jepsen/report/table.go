package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"
)

// Row is one run in the table of many.
type Row struct {
	Workload string
	Faults   []string
	Nodes    int
	Figures  Figures
	// Verdict is a word or a few: "valid", or what is wrong.
	Verdict string
}

// Table is of many runs.
type Table []Row

var columns = []string{
	"workload", "faults", "nodes", "operations", "refused", "unknown", "done/s", "quiet/s", "p50", "p99", "longest outage", "faults", "changes", "verdict",
}

// numbers are the columns that are set to the right.
func number(column int) bool { return column >= 2 && column < len(columns)-1 }

func (r *Row) cells() []string {
	f := &r.Figures
	faults := strings.Join(r.Faults, ", ")
	if faults == "" {
		faults = "none"
	}
	return []string{
		r.Workload, faults, fmt.Sprint(r.Nodes), grouped(f.Operations), grouped(f.Failed), grouped(f.Unknown), decimal(f.Rate), decimal(f.QuietRate),
		length(f.P50), length(f.P99), length(f.Outage), grouped(f.Faults), grouped(f.Changes), r.Verdict,
	}
}

// Text writes the table for a terminal.
func (t Table) Text(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	write := func(cells []string) error {
		for i := range cells {
			cells[i] = oneLine(cells[i])
		}
		_, err := fmt.Fprintln(table, strings.Join(cells, "\t"))
		return err
	}
	if err := write(append([]string(nil), columns...)); err != nil {
		return err
	}
	for i := range t {
		if err := write(t[i].cells()); err != nil {
			return err
		}
	}
	return table.Flush()
}

// Markdown writes the table for a page.
func (t Table) Markdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString("| " + strings.Join(columns, " | ") + " |\n|")
	for i := range columns {
		if number(i) {
			b.WriteString("---:|")
		} else {
			b.WriteString("---|")
		}
	}
	b.WriteString("\n")
	escape := strings.NewReplacer(`\`, `\\`, "|", `\|`, "<", "&lt;", "&", "&amp;", "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`)
	for i := range t {
		b.WriteString("|")
		for _, cell := range t[i].cells() {
			b.WriteString(" " + escape.Replace(oneLine(cell)) + " |")
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// oneLine puts a space for everything that would break a line or move what follows.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}
