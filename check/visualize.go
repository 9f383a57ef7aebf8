package check

import (
	"fmt"
	"io"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/kvdstore/kvd/kv"
)

// Visualize writes a page (HTML) that shows the operations on one key, the longest orders of them that explain their
// answers, and where these end. bounds are those of Expiry, timeout that of Linearizable.
func Visualize(w io.Writer, h History, key string, bounds Bounds, timeout time.Duration) error {
	if err := h.Validate(); err != nil {
		return err
	}
	var ops []*Operation
	for i := range h {
		if h[i].Key == key {
			ops = append(ops, &h[i])
		}
	}
	if len(ops) == 0 {
		return &kv.InvalidError{Field: "key", Bound: "one of the history, is " + kv.FormatKey([]byte(key))}
	}
	shown := model
	shown.DescribeOperation = func(input, _ any) string { return input.(*planned).describe() }
	shown.DescribeState = func(state any) string { return state.(register).describe() }
	_, info := porcupine.CheckOperationsVerbose(shown, plan(ops, bounds), timeout)
	if err := porcupine.Visualize(shown, info, w); err != nil {
		return fmt.Errorf("write a visualization: %w", err)
	}
	return nil
}

func (p *planned) describe() string {
	switch {
	case p == theEnd:
		return "the end"
	case p.Kind == expire:
		return "expiry of " + p.Operation.String()
	}
	return p.Operation.String()
}

func (r register) describe() string {
	switch {
	case r.ended:
		return "the end"
	case !r.present:
		return "absent"
	case !r.exact:
		return fmt.Sprintf("%s above @%d", brief(r.value), r.revision)
	}
	return fmt.Sprintf("%s @%d", brief(r.value), r.revision)
}
