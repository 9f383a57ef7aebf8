package node

import (
	"context"

	"golang.org/x/time/rate"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// newPace makes the pace of all snapshots that the node sends together: a new replica must not take the network and the
// disk away from those who serve. A chunk goes at once, what follows at the rate.
func newPace() *rate.Limiter { return rate.NewLimiter(0, kv.SnapshotChunkBytes) }

// paced gives the parts of a snapshot at a pace of so many bytes a second, which is asked for at each part. The end of ctx
// ends a wait.
func paced(ctx context.Context, pace *rate.Limiter, bytesPerSecond func() int64, next func() (*kvdv1.SnapshotChunk, bool, error)) func() (*kvdv1.SnapshotChunk, bool, error) {
	return func() (*kvdv1.SnapshotChunk, bool, error) {
		part, ok, err := next()
		if err != nil || !ok {
			return nil, false, err
		}
		pace.SetLimit(rate.Limit(bytesPerSecond()))
		// A part with a large value is more than the pace lets through at once.
		for left := len(part.GetData().GetPairs()); left > 0; left -= pace.Burst() {
			if err := pace.WaitN(ctx, min(left, pace.Burst())); err != nil {
				return nil, false, err
			}
		}
		return part, true, nil
	}
}
