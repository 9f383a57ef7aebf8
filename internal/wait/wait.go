// Package wait waits for a time, for programs that run clusters and put load on them.
package wait

import (
	"context"
	"time"
)

// For waits for a time, or until the context ends, whose error it gives then.
func For(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
