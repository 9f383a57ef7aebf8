package node

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// TestLivesAreOfMembers: an envelope of another cluster, for another node or of somebody unknown says nothing of a
// neighbour's life, which would silence it, and leaves nothing behind.
func TestLivesAreOfMembers(t *testing.T) {
	w := newTrio(t)
	w.elected()
	m := w.nodes[1]
	before := len(m.core.lives)
	for i := range uint64(100) {
		m.in.Envelopes = append(m.in.Envelopes,
			&kvdv1.Envelope{ClusterId: 8, FromNode: 1, ToNode: 2, FromLife: 100},
			&kvdv1.Envelope{ClusterId: 7, FromNode: 1, ToNode: 3, FromLife: 100},
			&kvdv1.Envelope{ClusterId: 7, FromNode: 100 + i, ToNode: 2, FromLife: 1})
		w.settle(m)
	}
	require.Len(t, m.core.lives, before)
	require.Equal(t, kv.Life(1), m.core.lives[1])
	m.in.Envelopes = append(m.in.Envelopes, &kvdv1.Envelope{ClusterId: 7, FromNode: 1, ToNode: 2, FromLife: 2})
	w.settle(m)
	require.Equal(t, kv.Life(2), m.core.lives[1])
}

// TestRefusedMessagesFillNoLog: of many that are refused one is told of, and later again one.
func TestRefusedMessagesFillNoLog(t *testing.T) {
	w := newTrio(t)
	w.elected()
	m, log := w.nodes[1], &bytes.Buffer{}
	m.core.Logger = slog.New(slog.NewTextHandler(log, nil))
	flood := func() {
		e := &kvdv1.Envelope{ClusterId: 7, FromNode: 1, ToNode: 2, FromLife: 1}
		for range 1000 {
			e.Messages = append(e.Messages, &kvdv1.RaftMessage{Shard: trioShard, From: 6, To: 5, Term: 1, Type: uint32(raftpb.MsgHeartbeat)})
		}
		m.in.Envelopes = append(m.in.Envelopes, e)
		w.settle(m)
	}
	flood()
	flood()
	require.Equal(t, 1, strings.Count(log.String(), "a message was refused"))
	w.now += refusedInterval
	flood()
	require.Equal(t, 2, strings.Count(log.String(), "a message was refused"))
}

// TestHintsNameMembers: who answers that a stranger leads is not believed: nothing is kept of nodes that nobody knows.
func TestHintsNameMembers(t *testing.T) {
	n := &Node{}
	n.publishMeta(foundingOf(t, 3))
	n.learn(1, 3)
	require.Equal(t, kv.NodeID(3), n.Leader(1))
	n.learn(1, 9)
	require.Equal(t, kv.NodeID(3), n.Leader(1))
	n.learn(1, 0)
	require.Zero(t, n.Leader(1))
}

// TestLooksAreBounded: who asks again and again while the loop stands still is refused.
func TestLooksAreBounded(t *testing.T) {
	n := &Node{inbox: newInbox(), ctx: t.Context()}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range kv.LoopCallsMax {
		require.ErrorIs(t, n.inLoop(gone, func(*Core) {}), context.Canceled)
	}
	require.ErrorAs(t, n.inLoop(gone, func(*Core) {}), new(*kv.OverloadError))
	require.Len(t, n.inbox.take().Calls, kv.LoopCallsMax)
	require.ErrorIs(t, n.inLoop(gone, func(*Core) {}), context.Canceled)
}

// TestFoundingEndsItsQuestions: when Run returns nobody asks any more, so that no answer is written to a data directory
// that was given up.
func TestFoundingEndsItsQuestions(t *testing.T) { synctest.Test(t, foundingEndsItsQuestions) }

func foundingEndsItsQuestions(t *testing.T) {
	nodes := []FoundNode{{Name: "a", Address: "h:1"}, {Name: "b", Address: "h:2"}, {Name: "c", Address: "h:3"}}
	founder, err := NewFounder(FounderConfig{
		Name: "a", Nodes: nodes, Rand: rand.New(rand.NewPCG(1, 1)),
		MakeFounding: func(map[string]kv.StoreID) *kvdv1.Founding { panic("nobody has answered") },
	})
	require.NoError(t, err)
	r := NewFounding(founder, func(*kvdv1.StoreRecord) error { return nil }, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var asking atomic.Int64
	let := make(chan struct{})
	r.Ask = func(ctx context.Context, _ string, _ *kvdv1.FoundRequest) (*kvdv1.FoundResponse, error) {
		asking.Add(1)
		defer asking.Add(-1)
		<-ctx.Done()
		<-let
		return nil, errors.New("the caller went away")
	}
	ended := make(chan int64, 1)
	go func() {
		_, _ = r.Run(ctx)
		ended <- asking.Load()
	}()
	synctest.Wait()
	require.EqualValues(t, 2, asking.Load())
	cancel()
	synctest.Wait()
	require.Empty(t, ended, "Run has returned")
	close(let)
	require.Zero(t, <-ended)
}

// TestInboxIsBounded: messages that come faster than turns take them are dropped past a bound, and taken again after a turn.
func TestInboxIsBounded(t *testing.T) {
	b := newInbox()
	big := &kvdv1.Envelope{Messages: []*kvdv1.RaftMessage{{Entries: []*kvdv1.RaftEntry{{Data: make([]byte, 1<<20)}}}}}
	taken := 0
	for range 2 * kv.InboxBytesMax >> 20 {
		if b.envelope(big) {
			taken++
		}
	}
	require.Greater(t, taken, kv.InboxBytesMax>>20-2)
	require.LessOrEqual(t, taken*big.SizeVT(), kv.InboxBytesMax)
	require.Len(t, b.take().Envelopes, taken)
	require.True(t, b.envelope(big))
}

// TestQueueOfAShardIsBounded: a shard whose writes do not end fills its own bound, and leaves room for the others up to
// the node's; what ends gives its room back.
func TestQueueOfAShardIsBounded(t *testing.T) {
	n := &Node{budget: newBudget()}
	const size = kv.ValueBytesMax
	fill := func(v *View) (taken int64) {
		for n.admit(v, size) == nil {
			taken += size
		}
		return taken
	}
	stuck := &View{}
	require.EqualValues(t, kv.ShardProposalBytesMax, fill(stuck))
	var overload *kv.OverloadError
	require.ErrorAs(t, n.admit(stuck, size), &overload)
	require.Positive(t, overload.RetryAfter)
	all := int64(kv.ShardProposalBytesMax)
	for range 9 {
		all += fill(&View{})
	}
	require.EqualValues(t, kv.ProposalBytesMax, all)
	n.release(stuck, size)
	n.budget.writes.leave()
	require.NoError(t, n.admit(stuck, size))

	n = &Node{budget: newBudget()}
	stuck = &View{}
	small := 0
	for n.admit(stuck, 100) == nil {
		small++
	}
	require.Equal(t, kv.ProposalsAlways*3/4, small)
	other := &View{}
	for range kv.ProposalsAlways / 4 {
		require.NoError(t, n.admit(other, 100))
	}
	require.Error(t, n.admit(other, 100))
}
