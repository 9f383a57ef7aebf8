package sched

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"
)

// The policies, as the kernel numbers them.
const (
	other = unix.SCHED_NORMAL
	batch = unix.SCHED_BATCH
)

// Run chooses the policy of this process' threads until ctx ends, and leaves it as it is then. Where it cannot, it says so and leaves
// SCHED_OTHER.
func Run(ctx context.Context, logger *slog.Logger) {
	if attr, err := unix.SchedGetAttr(0, 0); err == nil && attr.Policy != other {
		return
	}
	if err := govern(ctx, logger); err != nil {
		logger.Info("threads keep SCHED_OTHER", "error", err)
		_ = change(batch, other)
	}
}

func govern(ctx context.Context, logger *slog.Logger) error {
	var g governor
	var m meter
	if _, err := m.read(); err != nil {
		return err
	}
	tick := time.NewTicker(window)
	defer tick.Stop()
	var seen look
	for {
		was := g.batch
		switch is := g.decide(time.Now(), seen); {
		case is && !was:
			if err := change(other, batch); err != nil {
				return err
			}
		case was && !is:
			if err := change(batch, other); err != nil {
				return err
			}
			logger.Debug("other programs compute without a rest: threads are of SCHED_OTHER", "ran", seen.ran, "waited", seen.waited)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var err error
		if seen, err = m.read(); err != nil {
			return err
		}
	}
}
