package check

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/kvdstore/kvd/kv"
)

// Intent is part of the value of every event that begins an operation of a workload.
type Intent struct {
	// Due is when the operation was meant to begin, in nanoseconds since the run began; 0 if nothing kept it waiting. A
	// latency counts from there, or a cluster that makes its clients wait would look fast.
	Due int64 `json:"due,omitempty"`
}

// Meant notes when the operation was meant to begin.
func (i *Intent) Meant(due int64) { i.Due = due }

// Began is when the call was meant to begin, in nanoseconds since the run began.
func (c *Call) Began() int64 {
	var i Intent
	if json.Unmarshal(c.Invoke.Value, &i) != nil || i.Due <= 0 || i.Due > c.Invoke.Time {
		return c.Invoke.Time
	}
	return i.Due
}

// Latency is how long the caller waited, from the moment at which the call was meant to begin; ok is false if nobody knows
// when it ended.
func (c *Call) Latency() (latency time.Duration, ok bool) {
	if c.Done == nil {
		return 0, false
	}
	return time.Duration(c.Done.Time - c.Began()), true
}

// Asked is the value of the event that begins an operation on one key; its kind is the event's F. What a field means is
// said at Operation.
type Asked struct {
	Intent
	Key      string      `json:"key"`
	Value    string      `json:"value,omitempty"`
	Expect   kv.Revision `json:"expect,omitempty"`
	Delta    int64       `json:"delta,omitempty"`
	TTL      int64       `json:"ttl,omitempty"`
	ExpireAt int64       `json:"expire_at,omitempty"`
	// Final: the read came after everything else, when the cluster was whole again.
	Final bool `json:"final,omitempty"`
}

// Told is the value of the event that ends an operation on one key, if that was done.
type Told struct {
	Found     bool        `json:"found,omitempty"`
	Succeeded bool        `json:"succeeded,omitempty"`
	Observed  string      `json:"observed,omitempty"`
	Revision  kv.Revision `json:"revision,omitempty"`
	ExpireAt  int64       `json:"expire_at,omitempty"`
}

// Keys are what was done to keys, each by itself.
type Keys struct {
	// History has all operations, Running those without the final reads.
	History, Running History
	// Final tells which keys were read at the end, and Ends what was there: an absent key has none.
	Final map[string]bool
	Ends  map[string]Final
}

func newKeys() *Keys { return &Keys{Final: map[string]bool{}, Ends: map[string]Final{}} }

// add adds an operation, which may be a final read.
func (k *Keys) add(o Operation, final bool) {
	k.History = append(k.History, o)
	if !final {
		k.Running = append(k.Running, o)
		return
	}
	if o.Outcome != Done {
		return
	}
	k.Final[o.Key] = true
	if delete(k.Ends, o.Key); o.Found {
		k.Ends[o.Key] = Final{Value: o.Observed, Revision: o.Revision, ExpireAt: o.ExpireAt}
	}
}

// NoLostWrites is that of the keys that were read at the end.
func (k *Keys) NoLostWrites() []Violation { return NoLostWrites(k.Running.Of(k.Final), k.Ends) }

// Operations gives the calls that are operations on one key.
func Operations(calls []Call) (*Keys, error) {
	k := newKeys()
	for i := range calls {
		kind := Kind(nameIndex(kindNames[:], calls[i].Invoke.F))
		if kind == 0 {
			continue
		}
		o, asked, err := operation(&calls[i], kind)
		if err != nil {
			return nil, err
		}
		k.add(o, asked.Final && kind == Get)
	}
	return k, nil
}

// outcomes of calls are those of operations.
var outcomes = map[EventType]Outcome{OK: Done, Failed: NotDone, Info: Unknown}

func operation(c *Call, kind Kind) (Operation, Asked, error) {
	var asked Asked
	if err := json.Unmarshal(c.Invoke.Value, &asked); err != nil {
		return Operation{}, asked, fmt.Errorf("event %d: %w", c.Invoke.Index, err)
	}
	o := Operation{
		Process: c.Invoke.Process, Kind: kind, Key: asked.Key, Value: asked.Value, Expect: asked.Expect, Delta: asked.Delta,
		TTL: asked.TTL, ExpireAt: asked.ExpireAt, Call: c.Invoke.Time, Outcome: outcomes[c.Type()],
	}
	if c.Done != nil {
		o.Return = c.Done.Time
	}
	if o.Outcome == Done {
		var told Told
		if err := json.Unmarshal(c.Done.Value, &told); err != nil {
			return Operation{}, asked, fmt.Errorf("event %d: %w", c.Done.Index, err)
		}
		o.Found, o.Succeeded, o.Observed, o.Revision = told.Found, told.Succeeded, told.Observed, told.Revision
		if kind == Get {
			o.ExpireAt = told.ExpireAt
		}
	}
	if err := o.validate(); err != nil {
		return Operation{}, asked, fmt.Errorf("event %d: %w", c.Invoke.Index, err)
	}
	return o, asked, nil
}

// Of gives the operations on some keys.
func (h History) Of(keys map[string]bool) History {
	var some History
	for i := range h {
		if keys[h[i].Key] {
			some = append(some, h[i])
		}
	}
	return some
}
