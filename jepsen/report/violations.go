package report

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/kv"
)

// shown is a violation as the page lists it.
type shown struct {
	Rule, Key, Text string
	// At is when it shows, -1 if no moment is known.
	At int64
	// Operations are those that show it, Around what else was done with the key then, in the order of time.
	Operations, Around []told
	// During are the faults and changes of that time.
	During string
}

// told is an operation in a row.
type told struct {
	From, To, Who, What string
	Class               string
}

// show lists violations, and tells how many are left out.
func (t *timeline) show(violations []check.Violation) (list []shown, more int) {
	violations, more = cut(violations, violationsListed)
	for i := range violations {
		list = append(list, t.showOne(&violations[i]))
	}
	return list, more
}

func (t *timeline) showOne(v *check.Violation) shown {
	s := shown{Rule: string(v.Rule), Text: shorten(v.Text, textMax), At: -1}
	if v.Key != "" {
		s.Key = shorten(kv.FormatKey([]byte(v.Key)), textMax)
	}
	operations, _ := cut(v.Operations, operationsListed)
	if len(operations) == 0 {
		return s
	}
	from, to := operations[0].Call, operations[0].Call
	for i := range operations {
		o := &operations[i]
		from, to = min(from, o.Call), max(to, o.Call)
		if o.Outcome == check.Done {
			to = max(to, o.Return)
		}
		s.Operations = append(s.Operations, tellOperation(o))
	}
	s.At = operations[0].Call // The worst comes first.
	s.Around = t.around(v.Key, from, to)
	s.During = t.during(from, to+1)
	return s
}

// textMax bounds a text of a violation, in bytes.
const textMax = 2000

func tellOperation(o *check.Operation) told {
	_, what, _ := strings.Cut(o.String(), ": ")
	to := "?"
	if o.Outcome == check.Done {
		to = seconds(o.Return)
	}
	return told{seconds(o.Call), to, fmt.Sprint(o.Process), shorten(what, textMax), map[check.Outcome]string{check.Done: "ok", check.NotDone: "fail", check.Unknown: "info"}[o.Outcome]}
}

// around gives the calls that name a key and are nearest to a time.
func (t *timeline) around(key string, from, to int64) (list []told) {
	quoted, err := json.Marshal(key)
	if key == "" || err != nil {
		return nil
	}
	distance := func(c *call) int64 { return max(0, from-c.to, c.Invoke.Time-to) }
	var near []*call
	for i := range t.calls {
		if c := &t.calls[i]; bytes.Contains(c.Invoke.Value, quoted) {
			near = append(near, c)
		}
	}
	slices.SortStableFunc(near, func(a, b *call) int { return cmp.Compare(distance(a), distance(b)) })
	near, _ = cut(near, operationsListed)
	slices.SortStableFunc(near, func(a, b *call) int { return cmp.Compare(a.Invoke.Index, b.Invoke.Index) })
	for _, c := range near {
		list = append(list, tellCall(c))
	}
	return list
}

// tellCall tells a call as it was recorded.
func tellCall(c *call) told {
	row := told{From: seconds(c.Invoke.Time), To: "?", Who: fmt.Sprint(c.Invoke.Process), Class: classes[c.how]}
	row.What = c.Invoke.F + " " + string(c.Invoke.Value)
	if d := c.Done; d != nil {
		row.To = seconds(d.Time)
		row.What += " → " + string(d.Type)
		if len(d.Value) > 0 && string(d.Value) != "null" {
			row.What += " " + string(d.Value)
		}
		if d.Error != "" {
			row.What += " (" + d.Error + ")"
		}
	}
	row.What = shorten(row.What, textMax)
	return row
}
