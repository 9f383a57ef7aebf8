package node

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/shard"
)

// joinWorld is a cluster of one node, and the disk of another that joins it.
type joinWorld struct {
	t    *testing.T
	meta *raftmeta.Machine
	disk *kvdv1.StoreRecord
	// steps are those left until the crash.
	steps int
	lives uint64
	ids   map[uint64]bool // Every node id that was given.
}

func newJoinWorld(t *testing.T) *joinWorld {
	meta, err := raftmeta.Founding(raftmeta.FoundingSpec{
		Cluster: 7, Nodes: []raftmeta.FoundingNode{{Name: "n1", Address: "h:1", Store: 1}}, Replicas: 1, TickMs: tickMs, ElectionTicks: electionTicks,
	})
	require.NoError(t, err)
	m, err := raftmeta.New(raftmeta.Birth(meta, 1)[0])
	require.NoError(t, err)
	return &joinWorld{t: t, meta: m, ids: map[uint64]bool{}}
}

// discard keeps nothing.
type discard struct{ raftmeta.Writer }

func (discard) PutShard(kv.ShardID, *kvdv1.ShardState) {}

// carried has the meta group carry a command out.
func (w *joinWorld) carried(c *kvdv1.MetaCommand) kv.Result {
	value, err := c.MarshalVT()
	require.NoError(w.t, err)
	index, term := w.meta.Applied()
	w.meta.Begin(discard{})
	results, err := w.meta.Apply(index+1, term, &kvdv1.Batch{Commands: []*kvdv1.Command{
		shard.EncodeCommand(&kv.Command{Op: kv.OpMeta, Value: value}),
	}})
	require.NoError(w.t, err)
	w.meta.Finish()
	w.meta.Committed()
	return results[0]
}

// answer is what a member says.
func (w *joinWorld) answer(r *kvdv1.JoinRequest) *kvdv1.JoinResponse {
	result := w.carried(&kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_Join{Join: &kvdv1.MetaNode{
		Node: &kvdv1.Node{Name: r.Name, Address: r.Address}, StoreId: r.StoreId,
	}}})
	if result.Status == kv.Refused {
		return &kvdv1.JoinResponse{Refusal: result.Reason}
	}
	w.ids[uint64(result.Counter)] = true
	return &kvdv1.JoinResponse{ClusterId: 7, NodeId: uint64(result.Counter), Meta: w.meta.State().Meta}
}

// step reports whether the process still lives for another step.
func (w *joinWorld) step() bool {
	w.steps--
	return w.steps >= 0
}

// live runs a process until it has joined, is refused, or crashes.
func (w *joinWorld) live(name string) (done *kvdv1.StoreRecord, err error) {
	w.lives++
	j := NewJoiner(JoinerConfig{Name: name, Address: "h:2", Members: []string{"h:2", "h:1"}, Record: w.disk, Rand: rand.New(rand.NewPCG(1, w.lives))})
	for range 20 {
		if r := j.Unsynced(); r != nil {
			if !w.step() {
				return nil, nil
			}
			w.disk = proto.CloneOf(r)
			if !w.step() {
				return nil, nil
			}
			j.Synced()
		}
		if j.Done() != nil || j.Err() != nil {
			return j.Done(), j.Err()
		}
		address, r := j.Ask()
		require.NotZero(w.t, r.StoreId)
		require.Equal(w.t, w.disk.GetStoreId(), r.StoreId, "it is on the disk before it is told")
		if address == "h:2" {
			j.Answer(nil, errors.New("is this node itself"))
			continue
		}
		if !w.step() {
			return nil, nil
		}
		resp := w.answer(r)
		if !w.step() {
			return nil, nil
		}
		j.Answer(resp, nil)
	}
	w.t.Fatal("it never ends: ", j.Missing())
	return nil, nil
}

// TestJoinerCrashes (B2): it crashes at every step of the joining, and at every step of the start after that. The next
// start joins, and however often it asked it was given one node id.
func TestJoinerCrashes(t *testing.T) {
	const steps = 6 // Around two syncs and one question.
	for first := range steps + 1 {
		for second := range steps + 1 {
			w := newJoinWorld(t)
			for _, w.steps = range []int{first, second, 1000} {
				done, err := w.live("n2")
				require.NoError(t, err)
				if w.steps < 0 {
					continue
				}
				require.NotNil(t, done)
			}
			what := fmt.Sprintf("crashes after %d and %d steps: %v", first, second, w.disk)
			require.Equal(t, map[uint64]bool{2: true}, w.ids, what)
			require.Equal(t, kvdv1.StoreRecord_JOINED, w.disk.Phase, what)
			require.EqualValues(t, 7, w.disk.ClusterId, what)
			require.EqualValues(t, 2, w.disk.NodeId, what)
			require.Len(t, w.disk.Meta.Nodes, 2, what)
			require.Len(t, w.meta.State().Meta.Nodes, 2, what)
		}
	}
}

// TestJoinerIsRefused: the store of a node that was removed, a name that another store has, and a name other than that
// which the store was registered with.
func TestJoinerIsRefused(t *testing.T) {
	registered := func() *joinWorld {
		w := newJoinWorld(t)
		w.steps = 4 // The answer is lost.
		_, err := w.live("n2")
		require.NoError(t, err)
		require.Equal(t, kvdv1.StoreRecord_JOINING, w.disk.Phase)
		require.Len(t, w.meta.State().Meta.Nodes, 2)
		w.steps = 1000
		return w
	}
	refused := func(w *joinWorld, name, why string) {
		done, err := w.live(name)
		require.Nil(t, done)
		require.ErrorIs(t, err, ErrJoinRefused)
		require.ErrorContains(t, err, why)
		require.ErrorContains(t, err, "h:1", "who said so")
		require.NotEqual(t, kvdv1.StoreRecord_JOINED, w.disk.Phase)
	}
	w := registered()
	require.Equal(t, kv.Done, w.carried(&kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_RemoveNode{RemoveNode: &kvdv1.RemoveNode{Node: 2}}}).Status)
	refused(w, "n2", "node 2, which was removed")

	w = registered()
	w.disk = nil
	refused(w, "n2", "n2 is node 2, which has another data directory")
	done, err := w.live("n3")
	require.NoError(t, err)
	require.EqualValues(t, 3, done.NodeId, "it joins as a new node")

	refused(registered(), "other", "must stay n2")
}

// TestJoinerTakesNoWrongAnswer: one that does not have this store in its metadata, or no metadata, or a later version.
func TestJoinerTakesNoWrongAnswer(t *testing.T) {
	w := newJoinWorld(t)
	for what, broken := range map[string]func(*kvdv1.JoinResponse){
		"no metadata":      func(r *kvdv1.JoinResponse) { r.Meta = nil },
		"broken metadata":  func(r *kvdv1.JoinResponse) { r.Meta.Descriptors = nil },
		"another node":     func(r *kvdv1.JoinResponse) { r.NodeId = 1 },
		"an unknown node":  func(r *kvdv1.JoinResponse) { r.NodeId = 9 },
		"another cluster":  func(r *kvdv1.JoinResponse) { r.ClusterId = 8 },
		"another's store":  func(r *kvdv1.JoinResponse) { r.Meta.Nodes[1].StoreId = 99 },
		"a later version":  func(r *kvdv1.JoinResponse) { r.Meta.ClusterVersion = raftmeta.ClusterVersion + 1 },
		"nothing at all":   func(r *kvdv1.JoinResponse) { proto.Reset(r) },
		"what it is to be": func(*kvdv1.JoinResponse) {},
	} {
		j := NewJoiner(JoinerConfig{Name: "n2", Address: "h:2", Members: []string{"h:1"}, Record: &kvdv1.StoreRecord{StoreId: 5}, Rand: rand.New(rand.NewPCG(1, 1))})
		j.Synced()
		_, r := j.Ask()
		require.EqualValues(t, 5, r.StoreId, "it has an id already")
		resp := proto.CloneOf(w.answer(r))
		broken(resp)
		j.Answer(resp, nil)
		switch what {
		case "what it is to be":
			require.NotNil(t, j.Unsynced(), what)
		case "a later version":
			require.ErrorContains(t, j.Err(), "install a newer one", what)
		default:
			require.Nil(t, j.Unsynced(), what)
			require.NoError(t, j.Err(), what)
			require.Contains(t, j.Missing()[0], "cannot be right", what)
		}
	}
}

// TestWhoMayJoin: a store that belongs to a cluster does not, nor one that others may have counted for a founding.
func TestWhoMayJoin(t *testing.T) {
	founding := func(nodes int) *kvdv1.Founding {
		return &kvdv1.Founding{Meta: &kvdv1.MetaState{Nodes: make([]*kvdv1.MetaNode, nodes)}}
	}
	for _, c := range []struct {
		record       *kvdv1.StoreRecord
		may, already bool
	}{
		{nil, true, false},
		{&kvdv1.StoreRecord{StoreId: 1}, true, false},
		{&kvdv1.StoreRecord{StoreId: 1, Phase: kvdv1.StoreRecord_JOINING}, true, false},
		{&kvdv1.StoreRecord{StoreId: 1, Phase: kvdv1.StoreRecord_PREPARED, Founding: founding(1)}, true, false},
		{&kvdv1.StoreRecord{StoreId: 1, Phase: kvdv1.StoreRecord_PREPARED, Founding: founding(2)}, false, false},
		{&kvdv1.StoreRecord{StoreId: 1, Phase: kvdv1.StoreRecord_FOUNDED, Founding: founding(1)}, false, false},
		{&kvdv1.StoreRecord{StoreId: 1, Phase: kvdv1.StoreRecord_READY, Founding: founding(1)}, false, false},
		{&kvdv1.StoreRecord{StoreId: 1, Phase: kvdv1.StoreRecord_JOINED}, false, true},
		{&kvdv1.StoreRecord{StoreId: 1, Phase: kvdv1.StoreRecord_READY}, false, true},
	} {
		require.Equal(t, c.may, mayJoin(c.record), "%v", c.record)
		require.Equal(t, c.already, hasJoined(c.record), "%v", c.record)
	}
}
