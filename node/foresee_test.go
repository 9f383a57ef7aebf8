package node

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/cache"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/storage"
)

// foreseer is a node of two shards, cut at m, with a state store on disk that holds x, and so does the cache.
type foreseer struct {
	*lone
	node  *Node
	cache *obedient
	state *storage.PebbleState
}

var foreseen = []byte("x")

func newForeseer(t *testing.T) *foreseer {
	f := &foreseer{lone: newLone(t, []byte("m")), cache: &obedient{entries: map[uint64]*cache.Entry{}}}
	var err error
	f.state, err = storage.OpenState(storage.Options{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.state.Close()) })
	old := kv.Record{Value: []byte("old"), Revision: 1}
	f.commit(old)
	f.core.Guard = cache.New(f.cache, 16)
	f.node = &Node{reader: Reader{Node: 1, Guard: f.core.Guard, State: f.state}, state: f.state}
	f.core.Guard.Fill(f.view().state.Load().incarnation, foreseen, old, f.core.Guard.Word(foreseen))
	// Commits of other spans have the heads forgotten, and leave the cache.
	batch := f.state.NewBatch()
	batch.DeleteSpan(kv.Span{Start: []byte("a"), End: []byte("b")})
	_, err = f.state.Commit(batch)
	require.NoError(t, err)
	return f
}

func (f *foreseer) view() *View { return f.core.groups[2].view }

func (f *foreseer) commit(rec kv.Record) {
	batch := f.state.NewBatch()
	batch.Put(foreseen, rec)
	_, err := f.state.Commit(batch)
	require.NoError(f.t, err)
}

func (f *foreseer) foresee() { f.node.foresee(f.view(), &kvdv1.Command{Key: foreseen}) }

// knows checks what a write would know of the key.
func (f *foreseer) knows(revision kv.Revision) {
	h, ok, err := f.state.Head(foreseen)
	require.NoError(f.t, err)
	require.True(f.t, ok)
	require.Equal(f.t, revision, h.Revision)
}

// TestForeseeFromTheCache: what the cache has is not looked up.
func TestForeseeFromTheCache(t *testing.T) {
	f := newForeseer(t)
	peeked := 0
	f.cache.onGet = func() { peeked++ }
	f.foresee()
	require.Equal(t, 1, peeked)
	lacks, _ := f.state.Lacks(foreseen)
	require.False(t, lacks)
	f.knows(1)
	f.foresee()
	require.Equal(t, 1, peeked, "it is known already")
}

// TestForeseeBesideACommit: what the cache had before a commit is not taken for what it has committed.
func TestForeseeBesideACommit(t *testing.T) {
	f := newForeseer(t)
	f.cache.onGet = func() {
		f.cache.onGet = nil
		f.commit(kv.Record{Value: []byte("newer"), Revision: 7})
		batch := f.state.NewBatch() // The new one is forgotten too.
		batch.DeleteSpan(kv.Span{Start: []byte("a"), End: []byte("b")})
		_, err := f.state.Commit(batch)
		require.NoError(t, err)
	}
	f.foresee()
	f.knows(7)
}

// TestForeseeBesideAnAbsorbingSnapshot: once another shard's snapshot has replaced a replica's data, what the cache has of that is not
// taken for what is there, also before the loop has heard that it is done.
func TestForeseeBesideAnAbsorbingSnapshot(t *testing.T) {
	f := newForeseer(t)
	left, right := f.core.groups[1], f.core.groups[2]
	st := left.machine.State()
	st.Descriptor_ = &kvdv1.Descriptor{Shard: 1, Replicas: st.Descriptor_.Replicas}
	r := &Received{State: st}
	var err error
	r.Ingest, err = f.state.NewIngest(1, kv.Span{})
	require.NoError(t, err)
	require.NoError(t, r.Ingest.Put(foreseen, kv.Record{Value: []byte("newer"), Revision: 7}))
	require.NoError(t, f.core.replaces(r, left, []*group{right}))
	require.NoError(t, r.Ingest.Commit(st)) // Beside the loop; the turn that hears of it comes later.
	f.foresee()
	f.core.endAbsorbed(r)
	f.knows(7)
}
