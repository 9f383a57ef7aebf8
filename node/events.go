package node

import (
	"cmp"
	"slices"
	"sync"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// events are the newest kv.EventsMax of what was decided and has happened, as far as this node has heard. They are lost
// with the process: each node that hears of them remembers them, and whoever asks asks all.
type events struct {
	mu   sync.Mutex
	list []*kvdv1.Event // A ring once it is full: next is the oldest then.
	next int
	seen map[eventKey]bool
}

// eventKey tells one event from another: several nodes hear of the same one, and a node may hear of it twice. What the
// meta group has not decided carries no version, so its time tells it apart.
type eventKey struct {
	version, shard, node, goal uint64
	kind, state                string
	time                       int64
}

func keyOf(e *kvdv1.Event) eventKey {
	k := eventKey{version: e.GetVersion(), shard: e.GetShard(), node: e.GetNode(), goal: e.GetGoal(), kind: e.GetKind(), state: e.GetState()}
	if k.version == 0 {
		k.time = e.GetTimeMs()
	}
	return k
}

// Add remembers events, which are shared and read-only from then on. Those that are known already are left out.
func (r *events) Add(list []*kvdv1.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = map[eventKey]bool{}
	}
	for _, e := range list {
		k := keyOf(e)
		if r.seen[k] {
			continue
		}
		r.seen[k] = true
		if len(r.list) < kv.EventsMax {
			r.list = append(r.list, e)
			continue
		}
		delete(r.seen, keyOf(r.list[r.next]))
		r.list[r.next] = e
		r.next = (r.next + 1) % kv.EventsMax
	}
}

// Happened takes events of the meta group, as they were applied here, and those of its leader's plan.
func (n *Node) Happened(list []*kvdv1.Event) { n.events.Add(list) }

// Of gives at most limit events of a shard and a goal, 0 for any, the newest ones, oldest first.
func (r *events) Of(shard, goal uint64, limit int) []*kvdv1.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []*kvdv1.Event
	for i := len(r.list) - 1; i >= 0 && len(found) < limit; i-- {
		e := r.list[(r.next+i)%len(r.list)]
		if (shard == 0 || e.GetShard() == shard || e.GetOther() == shard) && (goal == 0 || e.GetGoal() == goal) {
			found = append(found, e)
		}
	}
	slices.Reverse(found)
	return found
}

// mergeEvents makes one list, oldest first, of those of several nodes, of which it keeps the newest.
func mergeEvents(lists [][]*kvdv1.Event, limit int) []*kvdv1.Event {
	all, seen := []*kvdv1.Event{}, map[eventKey]bool{}
	for _, list := range lists {
		for _, e := range list {
			if k := keyOf(e); !seen[k] {
				seen[k] = true
				all = append(all, e)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b *kvdv1.Event) int {
		return cmp.Or(cmp.Compare(a.GetTimeMs(), b.GetTimeMs()), cmp.Compare(a.GetVersion(), b.GetVersion()))
	})
	return all[max(len(all)-limit, 0):]
}
