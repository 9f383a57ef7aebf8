package check

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/kvdstore/kvd/kv"
)

// EventType is what a line of a recorded history tells.
type EventType string

// The types of events, by Jepsen's names.
const (
	// Invoked: an operation begins.
	Invoked EventType = "invoke"
	// OK: it was done, and Value tells with which result.
	OK EventType = "ok"
	// Failed: it was refused; nothing was or will be done.
	Failed EventType = "fail"
	// Info: nobody knows whether it was done, or will be. Its process is never heard of again. Of the nemesis it is what
	// happened.
	Info EventType = "info"
)

// Nemesis is the process that faults and changes are recorded under; in files its name is "nemesis".
const Nemesis = -1

// Event is a line of a recorded history, with Jepsen's fields.
type Event struct {
	// Index counts the events of a history from 0.
	Index int
	// Process is the client's thread, from 0, or Nemesis.
	Process int
	Type    EventType
	// F is the operation: what a workload calls it, or a fault.
	F string
	// Value is what a workload makes of it: arguments, and with OK results, in JSON.
	Value json.RawMessage
	// Time is in nanoseconds since the run began.
	Time int64
	// Error tells why, with Failed and Info.
	Error string
	// Node is whom a client asked, or whom a fault befell; empty for any.
	Node string
}

// eventLine is an event in a file.
type eventLine struct {
	Index   int             `json:"index"`
	Process processName     `json:"process"`
	Type    EventType       `json:"type"`
	F       string          `json:"f"`
	Value   json.RawMessage `json:"value"`
	Time    int64           `json:"time"`
	Error   string          `json:"error,omitempty"`
	Node    string          `json:"node,omitempty"`
}

type processName int

func (p processName) MarshalJSON() ([]byte, error) {
	if p == Nemesis {
		return []byte(`"nemesis"`), nil
	}
	return json.Marshal(int(p))
}

func (p *processName) UnmarshalJSON(text []byte) error {
	if string(text) == `"nemesis"` {
		*p = Nemesis
		return nil
	}
	var n int
	if err := json.Unmarshal(text, &n); err != nil || n < 0 {
		return &kv.InvalidError{Field: "process", Bound: `a number from 0, or "nemesis"`}
	}
	*p = processName(n)
	return nil
}

func (e *Event) validate() error {
	switch {
	case !slices.Contains([]EventType{Invoked, OK, Failed, Info}, e.Type):
		return &kv.InvalidError{Field: "type", Bound: "one of invoke, ok, fail, info"}
	case e.F == "":
		return &kv.InvalidError{Field: "f", Bound: "at least 1 byte"}
	case e.Time < 0:
		return &kv.InvalidError{Field: "time", Bound: fmt.Sprintf("0 or more, is %d", e.Time)}
	}
	return nil
}

// WriteEvents writes a recorded history as JSON lines.
func WriteEvents(w io.Writer, events []Event) error {
	out := bufio.NewWriter(w)
	lines := json.NewEncoder(out)
	for i := range events {
		e := &events[i]
		if err := lines.Encode(eventLine{e.Index, processName(e.Process), e.Type, e.F, e.Value, e.Time, e.Error, e.Node}); err != nil {
			return fmt.Errorf("write a history: event %d: %w", e.Index, err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write a history: %w", err)
	}
	return nil
}

// ReadEvents reads a recorded history from JSON lines; empty lines are passed over. An error names the line and the field.
func ReadEvents(r io.Reader) ([]Event, error) {
	var events []Event
	err := eachLine(r, func(text []byte) error {
		var l eventLine
		if err := json.Unmarshal(text, &l); err != nil {
			return err
		}
		events = append(events, Event{l.Index, int(l.Process), l.Type, l.F, l.Value, l.Time, l.Error, l.Node})
		return events[len(events)-1].validate()
	})
	if err != nil {
		return nil, fmt.Errorf("read a history: %w", err)
	}
	return events, nil
}

// Recorder records what many threads do, in the order in which they tell it: an event has its time and its index in one
// step, so that the times rise with the indexes.
type Recorder struct {
	began time.Time

	mu     sync.Mutex
	events []Event
}

// NewRecorder begins a history.
func NewRecorder() *Recorder { return &Recorder{began: time.Now()} }

// Record adds an event; its index and time are set. A value that has no JSON panics: it is the caller's own.
func (r *Recorder) Record(e Event, value any) Event {
	text, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("check: the value of %q: %v", e.F, err))
	}
	e.Value = text
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Index, e.Time = len(r.events), int64(time.Since(r.began))
	r.events = append(r.events, e)
	return e
}

// Since is the time since the run began, as events tell it.
func (r *Recorder) Since() time.Duration { return time.Since(r.began) }

// Moment puts a time of the wall clock, in milliseconds since 1970, on the clock of the events.
func (r *Recorder) Moment(ms int64) int64 { return int64(time.UnixMilli(ms).Sub(r.began)) }

// Events are those recorded so far, in a copy.
func (r *Recorder) Events() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// Call is an operation of a recorded history: its beginning, and its end if there was one.
type Call struct {
	Invoke Event
	// Done is the end; nil if the history ends before it, which tells as little as Info.
	Done *Event
}

// Type is how the call ended.
func (c *Call) Type() EventType {
	if c.Done == nil {
		return Info
	}
	return c.Done.Type
}

// Calls pairs the beginnings and ends of the clients' operations, in the order of their beginnings. A history that no
// recorder could have written is refused: an end without a beginning or before it, another's name, or a process that goes on after an Info.
func Calls(events []Event) ([]Call, error) {
	var calls []Call
	open := map[int]int{}
	ended := map[int]bool{}
	for i := range events {
		e := &events[i]
		if err := e.validate(); err != nil {
			return nil, fmt.Errorf("event %d: %w", e.Index, err)
		}
		if e.Process == Nemesis {
			continue
		}
		at, running := open[e.Process]
		switch {
		case ended[e.Process]:
			return nil, fmt.Errorf("event %d: %w", e.Index, &kv.InvalidError{Field: "process", Bound: fmt.Sprintf("one that has not ended with info, is %d", e.Process)})
		case e.Type == Invoked && running:
			return nil, fmt.Errorf("event %d: %w", e.Index, &kv.InvalidError{Field: "process", Bound: fmt.Sprintf("one that does nothing, %d does %s", e.Process, calls[at].Invoke.F)})
		case e.Type == Invoked:
			open[e.Process] = len(calls)
			calls = append(calls, Call{Invoke: *e})
		case !running || calls[at].Invoke.F != e.F:
			return nil, fmt.Errorf("event %d: %w", e.Index, &kv.InvalidError{Field: "f", Bound: fmt.Sprintf("what process %d does, is %s", e.Process, e.F)})
		case e.Time < calls[at].Invoke.Time:
			return nil, fmt.Errorf("event %d: %w", e.Index, &kv.InvalidError{Field: "time", Bound: fmt.Sprintf("not before that of its beginning (%d), is %d", calls[at].Invoke.Time, e.Time)})
		default:
			calls[at].Done = e
			delete(open, e.Process)
			ended[e.Process] = e.Type == Info
		}
	}
	return calls, nil
}
