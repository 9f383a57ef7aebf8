package report

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kvdstore/kvd/jepsen/workload"
)

// classes of paths by how calls end.
var classes = [hows]string{"ok", "fail", "info"}

// panels draws all of them.
func (t *timeline) panels(violations []shown, series map[string][]workload.Point) []*panel {
	list := []*panel{t.latencies(violations)}
	list = append(list, t.rates()...)
	if len(t.bands) > 0 {
		list = append(list, t.lanes())
	}
	for _, name := range slices.Sorted(maps.Keys(series)) {
		if len(list) < panelsMax {
			list = append(list, t.series(name, series[name]))
		}
	}
	return list
}

// panelsMax bounds the panels.
const panelsMax = 16

// latencies draws a point for each operation at the time it was meant to begin.
func (t *timeline) latencies(violations []shown) *panel {
	const height = 280
	p := t.newPanel("latency", "Latency of every operation", "Each operation at the moment it was meant to begin, with how long it took on a logarithmic scale; "+
		"dots were done, crosses refused, triangles ended unknown. Faults are shaded.", height)
	p.name(t)
	least, most := int64(math.MaxInt64), int64(0)
	for i := range t.calls {
		c := &t.calls[i]
		least, most = min(least, c.to-c.from), max(most, c.to-c.from)
	}
	low, high := decades(least, most)
	y := func(ns int64) float64 {
		of := (math.Log10(float64(max(ns, 1))) - float64(low)) / float64(high-low)
		return above + height*(1-min(max(of, 0), 1))
	}
	for d := low; d <= high; d++ {
		unit := int64(math.Pow10(d))
		p.level(y(unit), length(time.Duration(unit)))
	}
	dots := [hows]*cells{newCells(2, height), newCells(5, height), newCells(5, height)}
	for i := range t.calls {
		c := &t.calls[i]
		dots[c.how].add(t.x(c.from)-left, y(c.to-c.from)-above)
	}
	for level, class := range []string{"ok few", "ok some", "ok many"} {
		p.Paths = append(p.Paths, path{D: dots[ok].runs(level), Class: class})
	}
	p.Paths = append(p.Paths, path{D: dots[failed].signs("m-2.5-2.5l5 5m0-5l-5 5"), Class: "fail"}, path{D: dots[unknown].signs("m0-3l3 5.5h-6z"), Class: "info"})
	for _, v := range violations {
		if v.At >= 0 {
			p.Paths = append(p.Paths, path{D: fmt.Sprintf("M%s %dV%d", px(t.x(v.At)), above-2, above+height), Class: "wrong", Tip: v.Rule + " at " + seconds(v.At)})
		}
	}
	p.Legend = []legend{{"ok", "● done (darker: more of them)"}, {"fail", "× refused"}, {"info", "▲ unknown"}, {"shadekey", "■ fault"}}
	if len(violations) > 0 {
		p.Legend = append(p.Legend, legend{"wrong", "┃ violation"})
	}
	return p
}

// cells count points by squares of some pixels, so that each is drawn once however many there are.
type cells struct {
	size, rows, columns int
	counts              []uint32
}

func newCells(size, height int) *cells {
	c := &cells{size: size, rows: height/size + 1, columns: wide/size + 1}
	c.counts = make([]uint32, c.rows*c.columns)
	return c
}

func (c *cells) add(x, y float64) {
	column, row := min(max(int(x)/c.size, 0), c.columns-1), min(max(int(y)/c.size, 0), c.rows-1)
	c.counts[row*c.columns+column]++
}

// levels of how many points are in a square, from none up.
func levelOf(n uint32) int {
	switch {
	case n == 0:
		return -1
	case n == 1:
		return 0
	case n < 10:
		return 1
	}
	return 2
}

// runs draws the squares of a level, neighbours in one stroke.
func (c *cells) runs(level int) string {
	var d strings.Builder
	for row := range c.rows {
		for column := 0; column < c.columns; column++ {
			if levelOf(c.counts[row*c.columns+column]) != level {
				continue
			}
			from := column
			for column+1 < c.columns && levelOf(c.counts[row*c.columns+column+1]) == level {
				column++
			}
			fmt.Fprintf(&d, "M%d %dh%d", left+from*c.size, above+row*c.size+c.size/2, (column-from+1)*c.size)
		}
	}
	return d.String()
}

// signs draws a sign at each square that has points.
func (c *cells) signs(sign string) string {
	var d strings.Builder
	for i, n := range c.counts {
		if n > 0 {
			fmt.Fprintf(&d, "M%d %d%s", left+i%c.columns*c.size+c.size/2, above+i/c.columns*c.size+c.size/2, sign)
		}
	}
	return d.String()
}

// rates draws what was done a second, and what was not.
func (t *timeline) rates() []*panel {
	const columns = wide / 4
	width := step(t.end, columns, 250*time.Millisecond)
	var counts [hows][]float64
	for how := range counts {
		counts[how] = make([]float64, t.buckets(width))
	}
	for i := range t.calls {
		c := &t.calls[i]
		at := t.bucket(c.to, width)
		counts[c.how][at] += float64(time.Second) / float64(t.until(at, width)-int64(at)*width)
	}
	done := t.newPanel("throughput", "Done a second", "Operations that were done, by the moment they ended, in steps of "+length(time.Duration(width))+".", 100)
	done.area(t, counts[ok], width, ceiling(slices.Max(counts[ok])), 100, "ok")
	not := t.newPanel("errors", "Not done a second", "Operations that were refused, and those whose end is unknown, by the moment they ended, in steps of "+length(time.Duration(width))+".", 70)
	top := ceiling(max(slices.Max(counts[failed]), slices.Max(counts[unknown])))
	for _, how := range []int{failed, unknown} {
		not.area(t, counts[how], width, top, 70, classes[how])
	}
	not.Legend = []legend{{"fail", "━ refused"}, {"info", "┅ unknown"}}
	return []*panel{done, not}
}

// buckets is how many times of a width a history has: the last holds what is left, from half a width to one and a half.
func (t *timeline) buckets(width int64) int { return int(max((t.end+width/2)/width, 1)) }

// bucket is that of a moment.
func (t *timeline) bucket(at, width int64) int { return min(int(at/width), t.buckets(width)-1) }

// until is the end of a bucket.
func (t *timeline) until(bucket int, width int64) int64 {
	if bucket == t.buckets(width)-1 {
		return t.end
	}
	return int64(bucket+1) * width
}

// area draws steps, from 0 to a top.
func (p *panel) area(t *timeline, values []float64, width int64, top float64, height int, class string) {
	y := func(v float64) float64 { return above + float64(height)*(1-min(v/top, 1)) }
	if len(p.Paths) < 2 { // Only the grid of times is there.
		p.level(y(0), "0")
		p.level(y(top/2), decimal(top/2))
		p.level(y(top), decimal(top))
	}
	var line strings.Builder
	for i, v := range values {
		from := t.x(int64(i) * width)
		if i == 0 {
			fmt.Fprintf(&line, "M%s %s", px(from), px(y(v)))
		} else {
			fmt.Fprintf(&line, "V%s", px(y(v)))
		}
		fmt.Fprintf(&line, "H%s", px(t.x(t.until(i, width))))
	}
	p.Paths = append(p.Paths,
		path{D: line.String() + fmt.Sprintf("V%s H%d Z", px(y(0)), left), Class: class + " area"},
		path{D: line.String(), Class: class + " line"})
}

// lanes draws faults and changes, a lane for each name.
func (t *timeline) lanes() *panel {
	const lane = 18
	var names []string
	for _, wantChange := range []bool{false, true} { // Faults first.
		for i := range t.bands {
			if b := &t.bands[i]; !b.Not && b.change() == wantChange && !slices.Contains(names, b.Name) {
				names = append(names, b.Name)
			}
		}
	}
	names, more := cut(names, lanesDrawn)
	desc := "What befell the cluster and when: faults first, then splits, merges, moves and other changes: bars while they were asked for, ticks when they were done. The table below has each."
	if more > 0 {
		desc += fmt.Sprintf(" %d more kinds are not drawn.", more)
	}
	p := t.newPanel("faults", "Faults and changes of the map", desc, lane*max(len(names), 1))
	for row, name := range names {
		top := float64(above + row*lane)
		p.Texts = append(p.Texts, label{px(left - 8), px(top + lane - 5), "end", shorten(name, 14)})
		p.Paths = append(p.Paths, path{D: fmt.Sprintf("M%d %sH%d", left, px(top+lane), left+wide), Class: "grid"})
		p.lane(t, name, top+3, lane-6)
	}
	return p
}

// lane draws the bands of one name; what would fall on the same pixels is drawn once.
func (p *panel) lane(t *timeline, name string, top, height float64) {
	before := [2]int{-1, -1}
	for i := range t.bands {
		b := &t.bands[i]
		from, to := t.x(b.From), max(t.x(b.To), t.x(b.From)+2)
		at := [2]int{int(from), int(to)}
		if b.Not || b.Name != name || at == before {
			continue
		}
		before = at
		class := "band"
		if b.change() {
			class = "change"
		}
		if b.Moment {
			class, from, to = class+" moment", from-1.5, from+1.5
		}
		p.Marks = append(p.Marks, rect{px(from), px(top), px(to - from), px(height), class, tip(b)})
	}
}

// series draws what a workload has measured, on a logarithmic scale if that is needed to see more than its outliers.
func (t *timeline) series(name string, points []workload.Point) *panel {
	const height = 110
	p := t.newPanel("series-"+name, name, "What the workload measured: "+name+", over time.", height)
	points = slices.DeleteFunc(slices.Clone(points), func(x workload.Point) bool { return math.IsNaN(x.Value) || math.IsInf(x.Value, 0) })
	least, most := math.Inf(1), 0.0
	for _, x := range points {
		if most = max(most, x.Value); x.Value > 0 {
			least = min(least, x.Value)
		}
	}
	top := ceiling(most)
	share := func(v float64) float64 { return v / top }
	marks := []float64{0, top / 2, top}
	if most > logarithmicFrom*least {
		low := math.Floor(math.Log10(max(least, most/decadesMax)))
		decades := math.Ceil(math.Log10(most)) - low
		share = func(v float64) float64 { return (math.Log10(v) - low) / decades }
		marks = nil
		for d := range int(decades) + 1 {
			marks = append(marks, math.Pow10(int(low)+d))
		}
		p.Desc += " The scale is logarithmic; what is 0 lies at its foot."
	}
	y := func(v float64) float64 { return height * (1 - min(max(share(v), 0), 1)) }
	for _, v := range marks {
		p.level(above+y(v), decimal(v))
	}
	size, class := 2, ""
	if len(points) < fewPoints {
		size, class = 4, " big"
	}
	dots := newCells(size, height)
	for _, x := range points {
		dots.add(t.x(x.At)-left, y(x.Value))
	}
	for level, of := range []string{"ok few", "ok some", "ok many"} {
		p.Paths = append(p.Paths, path{D: dots.runs(level), Class: of + class})
	}
	return p
}

const (
	// logarithmicFrom is how many times the least the most is for a logarithmic scale, decadesMax what that holds at most.
	logarithmicFrom = 200
	decadesMax      = 1e5
	// fewPoints are drawn larger.
	fewPoints = 1000
)
