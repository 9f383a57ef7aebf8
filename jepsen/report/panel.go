package report

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// panel is one plot. All have the same time axis.
type panel struct {
	ID, Title, Desc string
	W, H            int
	Rects           []rect // Behind the paths.
	Paths           []path
	Marks           []rect // Before the paths.
	Texts           []label
	Legend          []legend
}

// rect is a rectangle; Tip is what is told to those who point at it.
type rect struct {
	X, Y, W, H string
	Class, Tip string
}

type path struct{ D, Class, Tip string }

type label struct{ X, Y, Class, Text string }

// legend explains a class of paths.
type legend struct{ Class, Text string }

func px(x float64) string { return strconv.FormatFloat(x, 'f', 1, 64) }

// newPanel begins a panel: a plot of a height with the time below and the faults shaded.
func (t *timeline) newPanel(id, title, desc string, height int) *panel {
	p := &panel{ID: id, Title: title, Desc: desc, W: full, H: above + height + below}
	bottom := float64(above + height)
	p.shade(t, float64(height))
	var d strings.Builder
	for at, s := int64(0), step(t.end, 12, time.Microsecond); at <= t.end; at += s {
		x := px(t.x(at))
		fmt.Fprintf(&d, "M%s %dV%s", x, above, px(bottom))
		p.Texts = append(p.Texts, label{x, px(bottom + 15), "mid", tick(at)})
	}
	p.Paths = append(p.Paths, path{D: d.String(), Class: "grid"})
	return p
}

// shade draws the faults that last. Those that look the same are drawn once.
func (p *panel) shade(t *timeline, height float64) {
	type pixels struct {
		name     string
		from, to int
	}
	drawn := map[pixels]bool{}
	for _, b := range t.lasting() {
		if b.change() {
			continue
		}
		from, to := t.x(b.From), max(t.x(b.To), t.x(b.From)+1)
		at := pixels{b.Name, int(from), int(to)}
		if drawn[at] || len(drawn) >= bandsDrawn {
			continue
		}
		drawn[at] = true
		p.Rects = append(p.Rects, rect{px(from), px(above), px(to - from), px(height), "shade", tip(&b)})
	}
}

// bandsDrawn bounds what is drawn of faults in a panel, lanesDrawn the lanes of their own.
const (
	bandsDrawn = 600
	lanesDrawn = 32
)

func tip(b *band) string {
	text := b.Name
	if b.Node != "" {
		text += " " + b.Node
	}
	if b.Moment {
		return text + ", at " + b.Begin()
	}
	return text + ", " + b.Begin() + " to " + b.End()
}

// name labels the faults above the plot, where there is room.
func (p *panel) name(t *timeline) {
	const perLetter, apart = 6.2, 6.0
	free := 0.0
	for _, b := range t.lasting() {
		at, room := t.x(b.From), float64(len(b.Name))*perLetter
		if b.change() || at < free || at+room > left+wide {
			continue
		}
		p.Texts = append(p.Texts, label{px(at), px(above - 5), "small", shorten(b.Name, 40)})
		free = at + room + apart
	}
}

// level draws a line across the plot with what it stands for.
func (p *panel) level(y float64, text string) {
	p.Paths = append(p.Paths, path{D: fmt.Sprintf("M%d %sH%d", left, px(y), left+wide), Class: "grid"})
	p.Texts = append(p.Texts, label{px(left - 8), px(y + 4), "end", text})
}
