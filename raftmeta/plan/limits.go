package plan

import (
	"fmt"
	"time"
	"unicode/utf8"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

// limits are the settings that the plan goes by.
type limits struct {
	splitBytes, splitLoad, splitBytesLoad  float64
	mergeBytes, mergeLoad                  float64 // Of both shards together.
	splitAge, mergeAge, deadAfter          time.Duration
	replicas, metaVoters                   int
	autoSplit, autoMerge, balance, leaders bool
	moveShare, mergeShare                  float64 // Of all keys, a round of a minute.
}

func limitsOf(s *raftmeta.Settings) limits {
	return limits{
		splitBytes: float64(s.Int(raftmeta.SplitSize)), splitLoad: float64(s.Int(raftmeta.SplitLoad)),
		splitBytesLoad: float64(s.Int(raftmeta.SplitBytesLoad)),
		mergeBytes:     float64(s.MergeSize()), mergeLoad: float64(s.MergeLoad()),
		splitAge: s.Duration(raftmeta.SplitAge), mergeAge: s.Duration(raftmeta.MergeAge), deadAfter: s.Duration(raftmeta.DeadAfter),
		replicas: int(s.Int(raftmeta.Replicas)), metaVoters: int(s.Int(raftmeta.MetaVoters)),
		autoSplit: s.Bool(raftmeta.AutoSplit), autoMerge: s.Bool(raftmeta.AutoMerge), balance: s.Bool(raftmeta.Balance), leaders: s.Bool(raftmeta.LeaderBalance),
		moveShare: float64(s.Int(raftmeta.MoveBudget)) / 100, mergeShare: float64(s.Int(raftmeta.MergeBudget)) / 100,
	}
}

// budgetRound is the time that a budget is for.
const budgetRound = time.Minute

// budget bounds the keys that changes of one kind move in a round of a minute. One change of a round may be larger, else a
// cluster of a few large shards would never be balanced.
type budget struct {
	began time.Duration
	spent float64 // Keys of this round.
}

// begin starts a new round when it is time.
func (b *budget) begin(now time.Duration) {
	if now-b.began >= budgetRound {
		*b = budget{began: now}
	}
}

// allows tells whether a change of so many keys may be made in this round; alone is one that may be larger.
func (b *budget) allows(keys, share, total float64, alone bool) bool {
	return b.spent+keys <= share*total || alone && b.spent == 0 && share > 0
}

// spend notes a change.
func (b *budget) spend(keys float64) { b.spent += keys }

// text tells how much is left.
func (b *budget) text(share, total float64) string {
	if total == 0 {
		return "nothing is spent"
	}
	return fmt.Sprintf("%.1f %% of all keys of %.0f %% a minute are spent", 100*b.spent/total, 100*share)
}

func epochOf(d *kv.Descriptor) *kvdv1.Epoch { return wire.FromEpoch(d.Epoch) }

// clip shortens a reason to its bound: keys in it may be long.
func clip(text string) string {
	const dots = "..."
	if len(text) <= raftmeta.ReasonBytesMax {
		return text
	}
	n := raftmeta.ReasonBytesMax - len(dots)
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + dots
}

// size is a number of bytes as people read it.
func size(b float64) string {
	switch {
	case b >= 1<<30:
		return fmt.Sprintf("%.1f GiB", b/(1<<30))
	case b >= 1<<20:
		return fmt.Sprintf("%.0f MiB", b/(1<<20))
	case b >= 1<<10:
		return fmt.Sprintf("%.0f KiB", b/(1<<10))
	}
	return fmt.Sprintf("%.0f B", b)
}
