package check

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/kvdstore/kvd/kv"
)

// ListTxn is a transaction on lists, each of which is one key's.
type ListTxn struct {
	Process int
	Ops     []ListOp
	// Call, Return and Outcome are as those of an Operation.
	Call, Return int64
	Outcome      Outcome
}

// ListOp is one step of a transaction: it appends an element to a list, or reads it as the steps before it have left it.
type ListOp struct {
	Append bool
	Key    string
	// Element is what is appended: no two appends to a key have the same.
	Element int64
	// List is what was read, in a transaction that is done.
	List []int64
}

// TxnName is the F of events of transactions on lists.
const TxnName = "txn"

// ListTxnAsked is the value of the event that begins a transaction on lists; that of its end are the steps with what they
// read.
type ListTxnAsked struct {
	Intent
	Ops []ListOp `json:"txn"`
}

// MarshalJSON writes Jepsen's form: ["append", key, element] or ["r", key, list].
func (o ListOp) MarshalJSON() ([]byte, error) {
	if o.Append {
		return json.Marshal([]any{"append", o.Key, o.Element})
	}
	return json.Marshal([]any{"r", o.Key, o.List})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (o *ListOp) UnmarshalJSON(text []byte) error {
	var parts []json.RawMessage
	var name string
	if err := json.Unmarshal(text, &parts); err != nil {
		return err
	}
	if len(parts) != 3 || json.Unmarshal(parts[0], &name) != nil || json.Unmarshal(parts[1], &o.Key) != nil {
		return &kv.InvalidError{Field: "txn", Bound: `["append", key, element] or ["r", key, list]`}
	}
	switch name {
	case "append":
		o.Append = true
		return json.Unmarshal(parts[2], &o.Element)
	case "r":
		return json.Unmarshal(parts[2], &o.List)
	}
	return &kv.InvalidError{Field: "txn", Bound: `append or r, is ` + name}
}

// ListTxnsOf gives the transactions on lists among calls.
func ListTxnsOf(calls []Call) ([]ListTxn, error) {
	var txns []ListTxn
	for i := range calls {
		c := &calls[i]
		if c.Invoke.F != TxnName {
			continue
		}
		var asked ListTxnAsked
		if err := json.Unmarshal(c.Invoke.Value, &asked); err != nil {
			return nil, fmt.Errorf("event %d: %w", c.Invoke.Index, err)
		}
		t := ListTxn{Process: c.Invoke.Process, Ops: asked.Ops, Call: c.Invoke.Time, Outcome: outcomes[c.Type()]}
		if c.Done != nil {
			t.Return = c.Done.Time
		}
		if t.Outcome == Done {
			t.Ops = nil
			if err := json.Unmarshal(c.Done.Value, &t.Ops); err != nil {
				return nil, fmt.Errorf("event %d: %w", c.Done.Index, err)
			}
			if !slices.EqualFunc(t.Ops, asked.Ops, func(a, b ListOp) bool { return a.Append == b.Append && a.Key == b.Key && a.Element == b.Element }) {
				return nil, fmt.Errorf("event %d: %w", c.Done.Index, &kv.InvalidError{Field: "txn", Bound: "the steps that were asked for"})
			}
		}
		txns = append(txns, t)
	}
	return txns, nil
}

// String describes the transaction.
func (t *ListTxn) String() string {
	var b strings.Builder
	until := "?"
	if t.Outcome != Unknown {
		until = fmt.Sprint(t.Return)
	}
	fmt.Fprintf(&b, "[%d, %s] process %d:", t.Call, until, t.Process)
	for _, o := range t.Ops {
		switch key := kv.FormatKey([]byte(o.Key)); {
		case o.Append:
			fmt.Fprintf(&b, " append %s %d", key, o.Element)
		case t.Outcome == Done:
			fmt.Fprintf(&b, " read %s %v", key, o.List)
		default:
			fmt.Fprintf(&b, " read %s", key)
		}
	}
	switch t.Outcome {
	case NotDone:
		b.WriteString(" -> not done")
	case Unknown:
		b.WriteString(" -> unknown")
	}
	return b.String()
}
