package node

import (
	"context"
	"errors"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/snapshot"
)

// Walk does the work, and closes the view. The end of ctx ends it.
func (s *SurveyWork) Walk(ctx context.Context) Survey {
	found := Survey{Kind: s.Kind, Shard: s.Shard, Goal: s.Goal, Index: s.Index}
	var err error
	switch s.Kind {
	case CountFrom:
		found.Keys, found.Bytes, found.Expiring, err = snapshot.Count(ctx, s.View, kv.Span{Start: s.Key, End: s.Span.End})
	case FindMiddle:
		found.Left, found.Right, err = snapshot.Middle(ctx, s.View, s.Span, s.View.State().GetBytes())
	case FindCut:
		found.Left, found.Right, err = snapshot.Neighbours(ctx, s.View, s.Span, s.Key)
	}
	found.Err = errors.Join(err, s.View.Close())
	return found
}
