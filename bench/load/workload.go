package load

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/kvdstore/kvd/kv"
)

// Kind of an operation.
type Kind uint8

// The kinds. A ReadModifyWrite reads a record and then writes it; an Insert writes a record that was not there.
const (
	Read Kind = iota
	Update
	Insert
	Scan
	ReadModifyWrite
	Delete
	kinds
)

func (k Kind) String() string {
	return [kinds]string{"read", "update", "insert", "scan", "read-modify-write", "delete"}[k]
}

// Writes tells whether a kind of operation may change something.
func (k Kind) Writes() bool { return k != Read && k != Scan }

// Op is one operation. Its slices are never written again after Next has given it.
type Op struct {
	Kind       Kind
	Key, Value []byte
	// End and Limit bound a Scan: keys from Key on and before End (none if it is empty), at most so many.
	End   []byte
	Limit int

	record uint64 // Of an Insert.
}

const (
	// KeysMax, ValueMax, DepthMax and PartsMax bound a workload.
	KeysMax  = 1 << 30
	ValueMax = kv.ValueBytesMax
	DepthMax = 512
	PartsMax = 1 << 20
	// scanMax is how many records a scan of workload E gives at most.
	scanMax = 100
	// recordBytes is a record of YCSB: ten fields of a hundred bytes, kept as one value.
	recordBytes = 10 * 100
	// plainBytes is the value of get and put, unless another is asked for.
	plainBytes = 128
	// bufferBytes are what values are cut from.
	bufferBytes = 1 << 16
)

// Mix is the share of each kind in percent; they add up to 100.
type Mix [kinds]int

// Workload is a kind of load. What is zero is the name's own.
type Workload struct {
	// Name is one of Names.
	Name string
	// Keys are the records that are there from the beginning.
	Keys int
	// Value is the length of a value in bytes.
	Value int
	// ReadPercent of get and put, -1 for their own (100 and 0).
	ReadPercent int
	// Distribution of keys, for get and put: uniform, zipfian, scrambled or latest.
	Distribution string
	// Parts and Used keep the keys of get and put in some of as many equal parts of the key space, spread evenly; without
	// them in all of it.
	Parts, Used int
	// Trace are the keys of the workload trace, in their order.
	Trace [][]byte
	// Seed of all chances.
	Seed uint64

	mix      Mix
	records  *frontier
	things   *things
	ordered  bool
	pipeline bool
	ycsb     bool
}

// standard are the workloads with their mixes.
var standard = map[string]Workload{
	"a":            {ycsb: true, mix: Mix{Read: 50, Update: 50}, Distribution: Scrambled},
	"b":            {ycsb: true, mix: Mix{Read: 95, Update: 5}, Distribution: Scrambled},
	"c":            {ycsb: true, mix: Mix{Read: 100}, Distribution: Scrambled},
	"d":            {ycsb: true, mix: Mix{Read: 95, Insert: 5}, Distribution: Latest},
	"e":            {ycsb: true, mix: Mix{Scan: 95, Insert: 5}, Distribution: Scrambled, ordered: true},
	"f":            {ycsb: true, mix: Mix{Read: 50, ReadModifyWrite: 50}, Distribution: Scrambled},
	"get":          {mix: Mix{Read: 100}, Distribution: Uniform},
	"put":          {mix: Mix{Update: 100}, Distribution: Uniform},
	"pipeline-get": {mix: Mix{Read: 100}, Distribution: Uniform, pipeline: true},
	"pipeline-put": {mix: Mix{Update: 100}, Distribution: Uniform, pipeline: true},
	"geo":          {Distribution: Uniform, ordered: true},
	"trace":        {Distribution: Uniform},
}

// Names gives the names of all workloads.
func Names() []string { return slices.Sorted(maps.Keys(standard)) }

// Prepare checks a workload and fills in what its name says. It tells of everything that is wrong at once.
func (w *Workload) Prepare() error {
	s, known := standard[w.Name]
	if !known {
		return &kv.InvalidError{Field: "workload", Bound: fmt.Sprintf("one of %v, is %q", Names(), w.Name)}
	}
	w.mix, w.ordered, w.pipeline, w.ycsb = s.mix, s.ordered, s.pipeline, s.ycsb
	plain := !s.ycsb && s.mix != Mix{}
	if w.Distribution == "" {
		w.Distribution = s.Distribution
	} else if !plain {
		return &kv.InvalidError{Field: "distribution", Bound: "of get and put alone: the others have their own"}
	}
	if w.Value == 0 {
		w.Value = plainBytes
		if s.ycsb {
			w.Value = recordBytes
		}
	}
	var errs []error
	if w.Keys < 1 || w.Keys > KeysMax {
		errs = append(errs, &kv.InvalidError{Field: "keys", Bound: fmt.Sprintf("1 to %d, is %d", KeysMax, w.Keys)})
	}
	if w.Value < 1 || w.Value > ValueMax {
		errs = append(errs, &kv.InvalidError{Field: "value", Bound: fmt.Sprintf("1 to %d bytes, is %d", ValueMax, w.Value)})
	}
	if !slices.Contains([]string{Uniform, Skewed, Scrambled, Latest}, w.Distribution) {
		errs = append(errs, &kv.InvalidError{Field: "distribution", Bound: fmt.Sprintf("uniform, zipfian, scrambled or latest, is %q", w.Distribution)})
	}
	if w.ReadPercent < -1 || w.ReadPercent > 100 {
		errs = append(errs, &kv.InvalidError{Field: "read-percent", Bound: fmt.Sprintf("0 to 100, is %d", w.ReadPercent)})
	}
	if w.ReadPercent >= 0 && plain {
		w.mix = Mix{Read: w.ReadPercent, Update: 100 - w.ReadPercent}
	} else if w.ReadPercent >= 0 {
		errs = append(errs, &kv.InvalidError{Field: "read-percent", Bound: "of get and put alone: the others have their own"})
	}
	if w.Parts != 0 && (!plain || w.Parts < 1 || w.Parts > PartsMax) {
		errs = append(errs, &kv.InvalidError{Field: "parts", Bound: fmt.Sprintf("of get and put alone, 1 to %d, is %d", PartsMax, w.Parts)})
	} else if w.Parts != 0 && (w.Used < 1 || w.Used > w.Parts) {
		errs = append(errs, &kv.InvalidError{Field: "used", Bound: fmt.Sprintf("1 to %d parts, is %d", w.Parts, w.Used)})
	}
	if w.Name == "trace" && len(w.Trace) == 0 {
		errs = append(errs, &kv.InvalidError{Field: "trace", Bound: "a file with at least one key"})
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	w.records = newFrontier(uint64(w.Keys))
	if w.Name == "geo" {
		w.things = newThings(w)
	}
	return nil
}

// Ordered tells whether the workload needs keys in order.
func (w *Workload) Ordered() bool { return w.ordered }

// Pipelined tells whether it is about a store's pipelined mode.
func (w *Workload) Pipelined() bool { return w.pipeline }

// Writes tells whether it changes anything.
func (w *Workload) Writes() bool { return w.mix[Read]+w.mix[Scan] < 100 }

// key is the key of a record: that of YCSB, or 16 bytes.
func (w *Workload) key(record uint64) []byte {
	if w.ycsb {
		return fmt.Appendf(nil, "user%019d", scatter(record))
	}
	return place(w.at(record))
}

// place is the key of a place, 16 hexadecimal digits.
func place(at uint64) []byte {
	return hex.AppendEncode(nil, binary.BigEndian.AppendUint64(nil, at<<1))
}

// at is where in the key space, which has 1<<63 places, a record lies.
func (w *Workload) at(record uint64) uint64 {
	if w.Parts == 0 {
		return scatter(record)
	}
	width := uint64(1<<63) / uint64(w.Parts)
	return width*uint64(w.part(record)) + scatter(record)%width
}

// part is that which a record lies in: the first records lie in one each.
func (w *Workload) part(record uint64) int {
	return int(record%uint64(w.Used)) * w.Parts / w.Used
}

// Cuts are the keys at which the workload's key space is halved, thirded and so on: one less than the parts.
func (w *Workload) Cuts(parts int) [][]byte {
	if w.things != nil {
		return w.things.cuts(parts)
	}
	var list [][]byte
	for i := 1; i < parts; i++ {
		at := uint64(1<<63) / uint64(parts) * uint64(i)
		if w.ycsb {
			list = append(list, fmt.Appendf(nil, "user%019d", at))
		} else {
			list = append(list, place(at))
		}
	}
	return list
}

// Fill gives the operation that puts the i-th of the records that are there from the beginning.
func (w *Workload) Fill(g *Generator, i int) Op {
	if w.things != nil {
		return Op{Kind: Insert, Key: w.things.first(i), Value: g.value()}
	}
	return Op{Kind: Insert, Key: w.key(uint64(i)), Value: g.value()}
}

// Generator makes the operations of one caller.
type Generator struct {
	w       *Workload
	rng     *rand.Rand
	choice  choice
	buffer  []byte
	caller  int
	callers int
	step    int
	// queue are operations that follow the last one.
	queue []Op
}

// Generator makes that of a caller, one of some.
func (w *Workload) Generator(caller, callers int) *Generator {
	g := &Generator{
		w: w, rng: rand.New(rand.NewPCG(w.Seed, uint64(caller))), choice: newChoice(w.Distribution, uint64(w.Keys)),
		buffer: make([]byte, max(bufferBytes, 2*w.Value)), caller: caller, callers: callers,
	}
	for i := range g.buffer {
		g.buffer[i] = byte(g.rng.Uint32())
	}
	return g
}

// value is some bytes that do not compress.
func (g *Generator) value() []byte {
	at := g.rng.IntN(len(g.buffer) - g.w.Value + 1)
	return g.buffer[at : at+g.w.Value : at+g.w.Value]
}

// Next gives the next operation, at a time since the beginning.
func (g *Generator) Next(since time.Duration) Op {
	if len(g.queue) > 0 {
		op := g.queue[0]
		g.queue = g.queue[1:]
		return op
	}
	g.step++
	switch {
	case g.w.things != nil:
		return g.w.things.next(g, since)
	case len(g.w.Trace) > 0:
		at := (g.caller + (g.step-1)*g.callers) % len(g.w.Trace) // Callers take turns.
		return Op{Kind: Read, Key: g.w.Trace[at]}
	}
	return g.mixed()
}

func (g *Generator) mixed() Op {
	at, kind := g.rng.IntN(100), Kind(0)
	for ; at >= g.w.mix[kind]; kind++ {
		at -= g.w.mix[kind]
	}
	op := Op{Kind: kind}
	if kind == Insert {
		op.record = g.w.records.begin()
		op.Key = g.w.key(op.record)
	} else {
		op.Key = g.w.key(g.choice.choose(g.rng, g.w.records.read.Load()))
	}
	if kind == Scan {
		op.Limit = 1 + g.rng.IntN(scanMax)
	}
	if kind.Writes() {
		op.Value = g.value()
	}
	return op
}

// Ended is to be called with every operation that Next gave, when it has ended, and whether it read what was not there.
func (g *Generator) Ended(op Op, missed bool) {
	switch {
	case op.Kind == Insert && g.w.things == nil && len(g.w.Trace) == 0:
		g.w.records.end(op.record)
	case op.Kind == Read && missed && len(g.w.Trace) > 0: // A cache is filled with what it did not have.
		g.queue = append(g.queue, Op{Kind: Insert, Key: op.Key, Value: g.value()})
	}
}
