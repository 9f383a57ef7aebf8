package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"rate": func(x float64) string { return fmt.Sprintf("%.0f", x) }, "two": func(x float64) string { return fmt.Sprintf("%.2f", x) },
	"ms": func(x float64) string { return fmt.Sprintf("%.3f", x) },
}).Parse(pageText))

// Plots are drawn this large, in pixels; labels are to their left.
const (
	plotWidth, plotHeight, labelWidth = 560, 180, 110
	barHeight                         = 22
)

// pageCase is what the page shows of a case.
type pageCase struct {
	Name, What          string
	Rows                []pageRow
	Ratios              []Compared
	Bars, Tails, Course template.HTML
}

type pageRow struct {
	System                string
	Rate                  Spread
	P50, P99, P999, P9999 float64
	Gap, Cores            float64
	Failed                uint64
}

// Page writes a page with the medians, the ratios and the plots of all runs. It needs nothing from elsewhere.
func Page(w io.Writer, title string, runs []*Run) error {
	groups := Groups(runs)
	var cases []pageCase
	for _, name := range Cases(groups) {
		list := byRate(groups, name)
		c := pageCase{Name: name, What: what(list[0].Runs[0]), Bars: bars(list), Tails: tails(list), Course: course(list)}
		for _, g := range list {
			row := pageRow{
				System: g.System, Rate: g.Spread(PerSecond), P50: g.Spread(P50).Median, P99: g.Spread(P99).Median, Gap: g.Spread(Gap).Median,
				P999:  g.Spread(P999).Median,
				P9999: g.Spread(func(r *Run) float64 { return r.Latency.P9999 }).Median, Cores: g.Spread(cores).Median,
			}
			row.Failed = g.failed()
			c.Rows = append(c.Rows, row)
		}
		for _, x := range Ratios(groups, PerSecond) {
			if x.Case == name {
				c.Ratios = append(c.Ratios, x)
			}
		}
		cases = append(cases, c)
	}
	return page.Execute(w, map[string]any{"Title": title, "Cases": cases})
}

func what(r *Run) string {
	text := fmt.Sprintf("workload %s, %d clients, values of %d B, %d keys", r.Workload, r.Clients, r.Value, r.Keys)
	if r.Rate > 0 {
		text += fmt.Sprintf(", %.0f a second", r.Rate)
	}
	return text
}

// colour of a system: the same in all plots of a page.
func colour(system string) string {
	h := uint32(2166136261)
	for _, c := range []byte(system) {
		h = (h ^ uint32(c)) * 16777619
	}
	return fmt.Sprintf("hsl(%d 60%% 45%%)", h%360)
}

// bars shows operations a second: a bar for the median, a line from the least to the most.
func bars(list []*Group) template.HTML {
	most := 0.0
	for _, g := range list {
		most = math.Max(most, g.Spread(PerSecond).Most)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="bars" width="%d" height="%d" role="img">`, labelWidth+plotWidth+90, barHeight*len(list)+4)
	for i, g := range list {
		s, y := g.Spread(PerSecond), i*barHeight
		x := func(n float64) float64 { return labelWidth + scale(n, most)*plotWidth }
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, labelWidth-6, y+15, template.HTMLEscapeString(g.System))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, labelWidth, y+3, x(s.Median)-labelWidth, barHeight-6, colour(g.System))
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="black"/>`, x(s.Least), x(s.Most), y+barHeight/2, y+barHeight/2)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%.0f</text>`, x(s.Most)+5, y+15, s.Median)
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

func scale(n, most float64) float64 {
	if most <= 0 {
		return 0
	}
	return n / most
}

// point is one of a line, both from 0 to 1.
type point struct{ x, y float64 }

// tails shows the latencies of percentiles, on a logarithmic scale.
func tails(list []*Group) template.HTML {
	at := []struct {
		name string
		f    Figure
	}{
		{"p50", P50}, {"p90", func(r *Run) float64 { return r.Latency.P90 }}, {"p99", P99},
		{"p99.9", func(r *Run) float64 { return r.Latency.P999 }}, {"p99.99", func(r *Run) float64 { return r.Latency.P9999 }},
	}
	least, most := math.Inf(1), 0.0
	for _, g := range list {
		for _, p := range at {
			if n := g.Spread(p.f).Median; n > 0 {
				least, most = math.Min(least, n), math.Max(most, n)
			}
		}
	}
	if most == 0 {
		return ""
	}
	wide := math.Max(math.Log(most/least), 1e-9)
	var names []string
	lines := make([][]point, len(list))
	for i, p := range at {
		names = append(names, p.name)
		for j, g := range list {
			n := math.Max(g.Spread(p.f).Median, least)
			lines[j] = append(lines[j], point{float64(i) / float64(len(at)-1), math.Log(n/least) / wide})
		}
	}
	return plot("tails", list, lines, fmt.Sprintf("%.3g ms", most), fmt.Sprintf("%.3g ms", least), names)
}

// course shows operations in each second of the middle round.
func course(list []*Group) template.HTML {
	most, length := 0.0, 0
	for _, g := range list {
		t := g.Runs[len(g.Runs)/2].Timeline
		length = max(length, len(t))
		for _, s := range t {
			most = math.Max(most, float64(s.Done))
		}
	}
	if length < 2 {
		return ""
	}
	lines := make([][]point, len(list))
	for i, g := range list {
		for j, s := range g.Runs[len(g.Runs)/2].Timeline {
			lines[i] = append(lines[i], point{float64(j) / float64(length-1), scale(float64(s.Done), most)})
		}
	}
	return plot("course", list, lines, fmt.Sprintf("%.0f/s", most), "0", []string{"first second", fmt.Sprintf("second %d", length)})
}

// plot draws a line for each group.
func plot(class string, list []*Group, lines [][]point, top, bottom string, names []string) template.HTML {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="%s" width="%d" height="%d" role="img">`, class, labelWidth+plotWidth+60, plotHeight+30)
	fmt.Fprintf(&b, `<text x="%d" y="12" text-anchor="end">%s</text><text x="%d" y="%d" text-anchor="end">%s</text>`, labelWidth-6, top, labelWidth-6, plotHeight, bottom)
	fmt.Fprintf(&b, `<rect x="%d" y="0" width="%d" height="%d" fill="none" stroke="#ccc"/>`, labelWidth, plotWidth, plotHeight)
	for i, name := range names {
		x := float64(i) / math.Max(float64(len(names)-1), 1)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`, labelWidth+x*plotWidth, plotHeight+18, name)
	}
	for i, g := range list {
		var points []string
		for _, p := range lines[i] {
			points = append(points, fmt.Sprintf("%.1f,%.1f", labelWidth+p.x*plotWidth, plotHeight-p.y*(plotHeight-4)))
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"><title>%s</title></polyline>`,
			strings.Join(points, " "), colour(g.System), template.HTMLEscapeString(g.System))
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}
