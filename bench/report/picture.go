package report

import (
	"fmt"
	"html/template"
	"io"
	"strings"
)

// captionHeight is the room above a case's plots for its name.
const captionHeight = 26

// Picture writes an SVG image with the plots of all cases, one below the other: operations a second (median, and a line from the least to the
// most), and the latencies by percentile on a logarithmic scale.
func Picture(w io.Writer, runs []*Run) error {
	groups := Groups(runs)
	var b strings.Builder
	y := 0
	for _, name := range Cases(groups) {
		list := byRate(groups, name)
		fmt.Fprintf(&b, `<text x="0" y="%d" font-weight="bold">%s</text>`, y+captionHeight-8, template.HTMLEscapeString(name+": "+what(list[0].Runs[0])))
		y += captionHeight
		for _, drawing := range []struct {
			svg    template.HTML
			height int
		}{{bars(list), barHeight*len(list) + 4}, {tails(list), plotHeight + 30}} {
			if drawing.svg != "" {
				b.WriteString(strings.Replace(string(drawing.svg), "<svg ", fmt.Sprintf(`<svg y="%d" `, y), 1))
				y += drawing.height
			}
		}
	}
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12"><rect width="100%%" height="100%%" fill="white"/>%s</svg>`+"\n",
		labelWidth+plotWidth+90, y, b.String())
	return err
}
