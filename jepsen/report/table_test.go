package report

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func rows() Table {
	return Table{
		{Workload: "register", Faults: []string{"kill", "pause"}, Nodes: 5, Verdict: "valid", Figures: Figures{Operations: 1234567, Outage: 1500 * time.Millisecond, Rate: 1999.6}},
		{Workload: "bank", Nodes: 3, Verdict: "lost | *write*\n<b>"},
	}
}

func TestTableForATerminal(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, rows().Text(&b))
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	require.Len(t, lines, 3)
	for _, want := range []string{"kill, pause", "1,234,567", "1.5 s", "2,000", "valid"} {
		require.Contains(t, lines[1], want)
	}
	require.Equal(t, strings.Index(lines[0], "nodes"), strings.Index(lines[1], "5  ")) // Columns are columns.
	require.Contains(t, lines[2], "none")
}

func TestTableForAPage(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, rows().Markdown(&b))
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	require.Len(t, lines, 4)
	for _, l := range lines {
		require.Equal(t, len(columns)+1, strings.Count(strings.ReplaceAll(l, `\|`, ""), "|"), l)
	}
	require.Contains(t, lines[3], `lost \| \*write\* &lt;b>`)
	require.Equal(t, len(columns)-3, strings.Count(lines[1], "---:|"))
}
