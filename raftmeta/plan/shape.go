package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// Splits and merges. A split by size or by load has the shard's leader choose the key. For the number of its requests a shard is
// split only to share them out: if its node leads more than its part, and no other node could take the shard as it is. More groups
// make no node faster, and have less in each entry (docs/adr/0004). It is not split if one key takes most of the load, nor when it is a small part of it.
//
// A merge asks for far less than what a split begins at, in sizes and loads, so that steady use leads to no merge after a
// split, nor the other way round.

const (
	// splitsMax and mergesMax bound the splits and merges at a time.
	splitsMax = 16
	mergesMax = 4
	// hotKeyShare is the share of a shard's requests that one key may take for a split by load to help.
	hotKeyShare = 2.0 / 3
	// sharePart: a shard is small enough to be shared out when it has at most this part of the mean load of a node, or
	// smallPart of it if that is more than the setting split-load.
	sharePart = 0.4
	smallPart = 1.0 / 4
	// coldPart: two shards are cold only if together they have at most this part of the mean load of a node: less than the
	// two sides of any boundary have that a split by load has made, as a cut leaves each a quarter.
	coldPart = 1.0 / 40
	// coldLoads is the part of the bytes a second that a shard is split at which two may have to be merged.
	coldLoads = 1.0 / 8
	// coldFor is how long a shard must have been without load: what comes and goes finds its shards as they were.
	coldFor = time.Minute
	// refusals back off, from the first to the last.
	backoffLoad    = 5 * time.Second
	backoffLoadMax = 2 * time.Minute
	backoffSize    = time.Minute
	backoffSizeMax = time.Hour
)

// splitAll sets goals for shards that are too large or have too much load, those with the most of it first.
func (r *round) splitAll() {
	var list []*shardState
	for _, s := range r.shards {
		if s.bytes >= r.lim.splitBytes || s.bytesLoad >= r.lim.splitBytesLoad || r.load > 0 && s.load >= min(r.lim.splitLoad, sharePart*r.mean()) {
			list = append(list, s)
		}
	}
	slices.SortStableFunc(list, func(a, b *shardState) int { return -cmp.Compare(a.load, b.load) })
	for _, s := range list {
		byLoad, why, no := r.judgeSplit(s)
		if no != "" || !s.free() || r.splits >= splitsMax || len(r.shards)+r.splits >= kv.ShardsMax {
			continue
		}
		if r.want(s, &kvdv1.Goal{Goal: &kvdv1.Goal_Split{Split: &kvdv1.SplitGoal{ByLoad: byLoad}}}, "%s", why) {
			r.splits++
		}
	}
}

// judgeSplit tells why a shard is to be split, or else why it is not.
func (r *round) judgeSplit(s *shardState) (byLoad bool, why, no string) {
	against := func(format string, args ...any) (bool, string, string) {
		figures := fmt.Sprintf("size %s of %s, load %.0f/s of %.0f", size(s.bytes), size(r.lim.splitBytes), s.load, r.lim.splitLoad)
		return false, "", figures + ": " + fmt.Sprintf(format, args...)
	}
	pause := s.mem.pauses[kindSplit]
	load := s.figures.Report.GetLoad()
	part := s.load / max(1, r.mean())
	switch {
	case !r.lim.autoSplit:
		return against("the setting auto-split is false")
	case s.bytes >= r.lim.splitBytes && r.Now >= pause.until:
		return false, fmt.Sprintf("size %s, of at most %s", size(s.bytes), size(r.lim.splitBytes)), ""
	case r.Now < pause.until:
		return against("no split for %s more: %s", seconds(pause.until-r.Now), pause.why)
	}
	from := r.byNode[s.leader]
	switch {
	case s.bytesLoad >= r.lim.splitBytesLoad:
		why = fmt.Sprintf("load %s/s, of at most %s", size(s.bytesLoad), size(r.lim.splitBytesLoad))
	case r.load == 0 || s.load < min(r.lim.splitLoad, sharePart*r.mean()):
		return against("no split")
	case from == nil || from.bar != "":
		return against("no split for load while no node leads it that may")
	case !r.lim.leaders:
		return against("the setting leader-balance is false: a split would share nothing out")
	case from.lead <= r.evenUpTo()*r.fair(s):
		return against("node %d leads no more than its part: a split would make nothing faster", s.leader)
	case r.fits(s, from):
		return against("another node can lead it whole")
	case r.passing(from):
		return against("the load has to be known for longer")
	case part > sharePart:
		why = fmt.Sprintf("load %.0f/s, %.0f %% of the mean of a node, is too much in one piece to be shared out", s.load, 100*part)
	case part < smallPart:
		return against("%.1f %% of the mean load of a node is little enough to be shared out", 100*part)
	default:
		why = fmt.Sprintf("load %.0f/s, of at most %.0f", s.load, r.lim.splitLoad)
	}
	switch {
	case !r.warm() || r.settling(s):
		return against("the load has to be known for longer")
	case load.GetHottestShare() > hotKeyShare:
		return against("one key takes %.0f %% of the requests (%s): a split would not help", 100*load.GetHottestShare(), kv.FormatKey(load.GetHottestKey()))
	}
	return true, why, ""
}

// mergeAll sets goals for neighbours that are small and cold.
func (r *round) mergeAll() {
	if !r.lim.autoMerge {
		return
	}
	for _, s := range r.shards {
		if s.load > r.lim.mergeLoad/2 || s.bytesLoad > coldLoads*r.lim.splitBytesLoad/2 {
			s.mem.rest(kindMerge, r.Now+min(coldFor, r.lim.mergeAge), "it had load of late")
		}
	}
	for i := 0; i+1 < len(r.shards); i++ {
		left, right := r.shards[i], r.shards[i+1]
		if left.bytes+right.bytes > r.lim.mergeBytes || left.load+right.load > r.lim.mergeLoad ||
			r.Now-max(left.mem.since, right.mem.since) < r.lim.mergeAge || left.goal != nil || right.goal != nil {
			continue // Quickly, of most.
		}
		why, no := r.judgeMerge(left, right)
		if no != "" || r.merging >= mergesMax {
			continue
		}
		if r.want(left, &kvdv1.Goal{Goal: &kvdv1.Goal_Merge{Merge: &kvdv1.MergeGoal{Right: uint64(right.d.Shard)}}}, "%s", why) {
			right.taken = true
			r.merging++
			r.p.merges.spend(right.keys)
		}
	}
}

// judgeMerge tells why two neighbours are to be merged, or else why they are not.
func (r *round) judgeMerge(left, right *shardState) (why, no string) {
	against := func(format string, args ...any) (string, string) {
		return "", fmt.Sprintf("not merged with shard %d: ", right.d.Shard) + fmt.Sprintf(format, args...)
	}
	age := r.Now - max(left.mem.since, right.mem.since)
	much := r.tooMuch(left, right, 1)
	switch {
	case !r.lim.autoMerge:
		return against("the setting auto-merge is false")
	case much != "":
		return against("%s", much)
	case age < r.lim.mergeAge:
		return against("one of the two has its span for %s, and must have it for %s", seconds(age), seconds(r.lim.mergeAge))
	case r.rule(left.d) != r.rule(right.d):
		return against("a rule holds for one of the two only")
	case len(left.d.Replicas) != len(right.d.Replicas):
		return against("they have %d and %d replicas", len(left.d.Replicas), len(right.d.Replicas))
	case r.splitGoalNear(left, right):
		return against("one of the two is to be split where a rule begins or ends")
	case !left.free() || !right.free():
		return against("one of the two is busy")
	case !r.p.merges.allows(right.keys, r.lim.mergeShare, r.keys, true):
		return against("the budget: %s", r.p.merges.text(r.lim.mergeShare, r.keys))
	}
	for _, s := range []*shardState{left, right} {
		if pause := s.mem.pauses[kindMerge]; r.Now < pause.until {
			return against("not for %s more: shard %d: %s", seconds(pause.until-r.Now), s.d.Shard, pause.why)
		}
		for _, x := range s.d.Replicas {
			if n := r.byNode[x.Node]; n == nil || n.silent || n.draining {
				return against("node %d is silent or draining", x.Node)
			}
		}
	}
	return fmt.Sprintf("shards %d and %d are small and cold: %s and %s, %.0f/s and %.0f/s",
		left.d.Shard, right.d.Shard, size(left.bytes), size(right.bytes), left.load, right.load), ""
}

// tooMuch tells why two shards together are too large or have too much load to be one. A larger factor lets more pass.
func (r *round) tooMuch(left, right *shardState, factor float64) string {
	bytes, load, bytesLoad := left.bytes+right.bytes, left.load+right.load, left.bytesLoad+right.bytesLoad
	mean := r.total / float64(max(1, len(r.usable)))
	switch {
	case bytes > factor*r.lim.mergeBytes:
		return fmt.Sprintf("together %s, at most %s", size(bytes), size(r.lim.mergeBytes))
	case load > factor*r.lim.mergeLoad:
		return fmt.Sprintf("together %.0f/s, at most %.0f/s", load, r.lim.mergeLoad)
	case bytesLoad > factor*coldLoads*r.lim.splitBytesLoad:
		return fmt.Sprintf("together %s/s, at most %s/s", size(bytesLoad), size(coldLoads*r.lim.splitBytesLoad))
	case r.total > idleLoad/4 && load > factor*coldPart*mean:
		return fmt.Sprintf("together %.1f %% of the mean load of a node, at most %.1f %%", 100*load/mean, 100*coldPart)
	}
	return ""
}

// splitGoalNear tells that a rule cuts one of the two.
func (r *round) splitGoalNear(left, right *shardState) bool {
	return len(r.Map.Rules()) > 0 && len(r.Map.RuleCuts(left.d.Span))+len(r.Map.RuleCuts(right.d.Span)) > 0
}
