package workload

import (
	"fmt"
	"io"

	"github.com/kvdstore/kvd/check"
)

// Visualize writes a page (HTML) about one key of a run's history, which a violation names: the orders that explain its
// answers, and where these end. It is an error if there are no operations on that key alone, as of a list.
func Visualize(w io.Writer, events []check.Event, key string) error {
	calls, err := check.Calls(events)
	if err != nil {
		return fmt.Errorf("visualize: %w", err)
	}
	k, err := check.Operations(calls)
	if err != nil {
		return fmt.Errorf("visualize: %w", err)
	}
	scans, err := check.ScansOf(calls)
	if err != nil {
		return fmt.Errorf("visualize: %w", err)
	}
	b, err := check.BankOf(calls)
	if err != nil {
		return fmt.Errorf("visualize: %w", err)
	}
	h := append(check.Scanned(k.History, scans), b.History...)
	if err := check.Visualize(w, h.Of(map[string]bool{key: true}), key, boundsOf(calls), searchMax); err != nil {
		return fmt.Errorf("visualize: %w", err)
	}
	return nil
}
