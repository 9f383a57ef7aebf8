package nemesis

import (
	"context"
	"slices"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

// newsMost bounds the events that are asked for at a time.
const newsMost = 200

// told names an event of the cluster: nodes tell the same again and again.
type told struct {
	version, shard, node, goal, other uint64
	kind, state                       string
}

// shapely are the kinds of events that change the map.
var shapely = []string{"split", "merge", "move", "repair", "transfer"}

// news records what the cluster tells of changes of its map that were made since the last look, its own and those of operators.
func (n *Nemesis) news(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, watchMax)
	defer cancel()
	resp, err := n.Operator.Events(ctx, &kvdv1.EventsRequest{Limit: newsMost})
	if err != nil {
		return // They come with the next look.
	}
	for _, e := range resp.GetEvents() {
		k := told{e.GetVersion(), e.GetShard(), e.GetNode(), e.GetGoal(), e.GetOther(), e.GetKind(), e.GetState()}
		if n.heard[k] || e.GetState() != "done" || !slices.Contains(shapely, e.GetKind()) {
			continue
		}
		n.heard[k] = true
		n.record(e.GetKind(), nil, map[string]any{
			"phase": "once", "by": "cluster", "shard": e.GetShard(), "other": e.GetOther(), "goal": e.GetGoal(), "text": e.GetText(),
			"at": n.Recorder.Moment(e.GetTimeMs()), // By a clock of the cluster.
		})
	}
}
