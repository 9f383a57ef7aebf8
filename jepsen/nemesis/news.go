package nemesis

import (
	"context"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

// newsMost bounds the events that are asked for at a time.
const newsMost = 200

// told names an event of the cluster: nodes tell the same again and again.
type told struct {
	version, shard, node, goal, other uint64
	kind, state                       string
}

// shapely are the kinds of events that change the map, or who leads, by the names that the history has for them.
var shapely = map[string]string{"split": "split", "merge": "merge", "move": "move", "repair": "move", "transfer": "transfer"}

// news records what the cluster has changed of its map by itself since the last look.
func (n *Nemesis) news(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, watchMax)
	defer cancel()
	resp, err := n.Operator.Events(ctx, &kvdv1.EventsRequest{Limit: newsMost})
	if err != nil {
		return // They come with the next look.
	}
	for _, e := range resp.GetEvents() {
		k := told{e.GetVersion(), e.GetShard(), e.GetNode(), e.GetGoal(), e.GetOther(), e.GetKind(), e.GetState()}
		name := shapely[e.GetKind()]
		if n.heard[k] || e.GetState() != "done" || name == "" || n.ours(e.GetGoal()) {
			continue
		}
		n.heard[k] = true
		n.record(name, nil, map[string]any{
			"phase": "once", "by": "cluster", "shard": e.GetShard(), "other": e.GetOther(), "goal": e.GetGoal(), "text": e.GetText(),
			"at": n.Recorder.Moment(e.GetTimeMs()), // By a clock of the cluster.
		})
	}
}

// ours tells whether an operator has set a goal here: its begin and end are recorded already.
func (n *Nemesis) ours(goal uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.goals[goal]
}
