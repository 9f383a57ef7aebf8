package node

import (
	"cmp"
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

// explained is the network to nodes that tell of their maps; those that are not in it do not answer, and are heard or silent.
type explained struct {
	Network
	answers map[kv.NodeID]*kvdv1.ExplainResponse
	silent  []kv.NodeID
}

func (e explained) LastHeard(of kv.NodeID) int64 {
	if slices.Contains(e.silent, of) {
		return 0
	}
	return time.Now().UnixNano()
}

func (e explained) Explain(ctx context.Context, to kv.NodeID, _ *kvdv1.ExplainRequest) (*kvdv1.ExplainResponse, error) {
	if resp := e.answers[to]; resp != nil {
		return resp, nil
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestFreshShards: a node outside of the meta group, which knows nobody or the wrong one to lead that, waits for the newest
// map that the group's nodes tell of; for the others it does not wait once the leader has answered, and for none of them
// for longer than a second.
func TestFreshShards(t *testing.T) {
	state := foundingOf(t, 4)
	older, err := raftmeta.NewMap(state)
	require.NoError(t, err)
	state = proto.CloneOf(state)
	state.Version++
	newer, err := raftmeta.NewMap(state)
	require.NoError(t, err)
	old, leads := &kvdv1.ExplainResponse{MapVersion: older.Version()}, &kvdv1.ExplainResponse{MapVersion: newer.Version(), Leads: true}
	follows := &kvdv1.ExplainResponse{MapVersion: newer.Version()}
	for name, c := range map[string]struct {
		hint    kv.NodeID
		silent  []kv.NodeID
		left    time.Duration // Until the caller's deadline, an hour when it is 0.
		answers map[kv.NodeID]*kvdv1.ExplainResponse
		arrives time.Duration
		want    *raftmeta.Map
		took    time.Duration
	}{
		"nobody known to lead":  {answers: map[kv.NodeID]*kvdv1.ExplainResponse{1: old, 2: leads}, arrives: 50 * time.Millisecond, want: newer, took: 50 * time.Millisecond},
		"led by another":        {hint: 1, answers: map[kv.NodeID]*kvdv1.ExplainResponse{1: old, 2: old, 3: leads}, arrives: 50 * time.Millisecond, want: newer, took: 50 * time.Millisecond},
		"the leader is gone":    {hint: 1, answers: map[kv.NodeID]*kvdv1.ExplainResponse{2: old, 3: follows}, arrives: 50 * time.Millisecond, want: newer, took: askMax},
		"the map comes later":   {hint: 1, answers: map[kv.NodeID]*kvdv1.ExplainResponse{2: old, 3: follows}, arrives: askMax + time.Millisecond, want: newer, took: askMax + time.Millisecond},
		"all are silent":        {hint: 1, silent: []kv.NodeID{1, 2, 3}, arrives: time.Hour, want: older},
		"little time":           {left: 300 * time.Millisecond, arrives: time.Hour, want: older, took: 100 * time.Millisecond},
		"the map does not come": {answers: map[kv.NodeID]*kvdv1.ExplainResponse{2: leads}, arrives: time.Hour, want: older, took: askMax},
		"nobody answers":        {arrives: time.Hour, want: older, took: askMax},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &Node{self: Self{Node: 4}, network: explained{answers: c.answers, silent: c.silent}, began: time.Now().Add(-time.Hour)}
				n.serving.Store(true)
				first := &published{shards: older, newer: make(chan struct{})}
				n.meta.Store(first)
				if c.hint != 0 {
					n.leaders.Store(kv.MetaShard, c.hint)
				}
				comes := time.AfterFunc(c.arrives, func() {
					n.meta.Store(&published{shards: newer, newer: make(chan struct{})})
					close(first.newer)
				})
				defer comes.Stop()
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), cmp.Or(c.left, time.Hour))
				defer cancel()
				m, err := n.freshShards(ctx)
				require.NoError(t, err)
				require.Same(t, c.want, m)
				require.Equal(t, c.took, time.Since(began))
			})
		})
	}
}
