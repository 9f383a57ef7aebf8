package node

import (
	"fmt"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/storage"
)

// SurveyKind is what a survey looks for.
type SurveyKind uint8

const (
	// CountFrom counts what lies at and above the key.
	CountFrom SurveyKind = iota + 1
	// FindMiddle finds the key that halves the data by its bytes.
	FindMiddle
	// FindCut finds the shortest key that separates the data as the given one does.
	FindCut
)

// SurveyWork is a walk through a shard's data, beside the loop.
type SurveyWork struct {
	Kind  SurveyKind
	Shard kv.ShardID
	Span  kv.Span
	// Goal is that of the split which it serves.
	Goal uint64
	// Index is that of the view.
	Index kv.Index
	Key   []byte
	View  storage.View
}

// Survey is what a walk has found.
type Survey struct {
	Kind  SurveyKind
	Shard kv.ShardID
	Goal  uint64
	Index kv.Index
	// Left and Right are the keys next to each other between which the cut is to be; nil if there are none.
	Left, Right []byte
	// Keys, Bytes and Expiring are what was counted.
	Keys, Bytes, Expiring uint64
	Err                   error
}

// survey begins a walk through a shard's data as it is visible now, for the split that is being prepared. Where too many wait
// already the split is given up until its order comes again.
func (c *Core) survey(g *group, kind SurveyKind, goal uint64, key []byte) {
	if c.surveys == kv.SurveysMax {
		c.giveUpSplit(g, false, "many shards are being split on this node")
		return
	}
	span := g.machine.Descriptor().Span
	view, err := c.State.View(g.shard, span)
	if err != nil {
		c.fail(fmt.Errorf("open a view: %w", err))
		return
	}
	c.surveys++
	g.splitting.walking = true
	c.Host.Survey(&SurveyWork{
		Kind: kind, Shard: g.shard, Span: span, Goal: goal, Index: kv.Index(view.State().GetAppliedIndex()), Key: key, View: view,
	})
}
