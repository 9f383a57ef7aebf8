package sched

import (
	"context"
	"log/slog"
	"time"
)

// Run chooses the policy of this process' threads until ctx ends, and leaves it as it is then. Where it cannot see how they fare, they
// are of SCHED_OTHER.
func Run(ctx context.Context, logger *slog.Logger) {
	var m meter
	govern(ctx, logger, m.read)
}

func govern(ctx context.Context, logger *slog.Logger, read func() (look, error)) {
	if policy, _, err := policyOf(0); err == nil && policy != policyOther {
		return
	}
	if _, err := read(); err != nil {
		logger.Info("threads stay of SCHED_OTHER", "error", err)
		return
	}
	tick := time.NewTicker(window)
	defer tick.Stop()
	var g governor
	for seen := (look{}); ; {
		was := g.batch
		// Every time, for threads that were missed before.
		var err error
		if g.decide(time.Now(), seen) {
			err = change(policyOther, policyBatch)
		} else {
			err = change(policyBatch, policyOther)
		}
		switch {
		case err != nil:
			logger.Debug("change how threads are scheduled", "error", err)
		case was && !g.batch:
			logger.Info("threads wait much longer than they run: they are of SCHED_OTHER", "ran", seen.ran, "waited", seen.waited)
		case !was && g.batch:
			logger.Info("threads are of SCHED_BATCH")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if seen, err = read(); err != nil {
			logger.Debug("see how threads are scheduled", "error", err)
			g.fall(time.Now())
		}
	}
}
