package raftmeta

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/geo"
	"github.com/kvdstore/kvd/kv"
)

// TestFoundingHolds: whatever nodes, cuts and wishes, the map holds its invariants, leaders are spread, every replica is
// born once, on its node, and what is to come gets new ids.
func TestFoundingHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cuts := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-f]{1,3}`), 0, 20, func(s string) string { return s }).Draw(t, "cuts")
		slices.Sort(cuts)
		s := spec(rapid.IntRange(1, 12).Draw(t, "nodes"), cuts...)
		s.Replicas = rapid.IntRange(1, ReplicasMax).Draw(t, "replicas")
		m := found(t, s)
		require.NoError(t, Check(m))
		odd := func(wish int) int { return (min(wish, len(s.Nodes))+1)/2*2 - 1 }
		require.Len(t, m.Meta.Replicas, odd(ReplicasMax))
		require.Len(t, m.Descriptors, len(cuts)+1)
		require.EqualValues(t, (s.Replicas+1)/2*2-1, SettingsOf(m).Int(Replicas), "what joining nodes raise it to")
		first := make([]int, len(s.Nodes))
		for _, d := range m.Descriptors {
			require.Len(t, d.Replicas, odd(s.Replicas), "the largest odd number")
			first[d.Replicas[0].Node-1]++
		}
		require.LessOrEqual(t, slices.Max(first)-slices.Min(first), 1, "leaders are spread: %v", first)
		require.Equal(t, []uint64{uint64(len(s.Nodes)) + 1, uint64(len(cuts)) + 2}, []uint64{m.NextNode, m.NextShard})
		born := map[uint64]bool{}
		for i, n := range s.Nodes {
			require.Equal(t, n.Name, m.Nodes[i].Node.Name, "ids are in the order of the list")
			require.Equal(t, uint64(n.Store), m.Nodes[i].StoreId)
			for _, st := range Birth(m, kv.NodeID(i+1)) {
				require.False(t, born[st.Replica], "replica %d is born twice", st.Replica)
				born[st.Replica] = true
				require.Contains(t, st.Voters, st.Replica)
				require.Len(t, st.Voters, len(st.Descriptor_.Replicas))
				require.Equal(t, []uint64{uint64(kv.BirthIndex), uint64(kv.BirthTerm), uint64(kv.BirthIndex), uint64(kv.BirthTerm)},
					[]uint64{st.AppliedIndex, st.AppliedTerm, st.BaseIndex, st.BaseTerm})
				require.Equal(t, st.Descriptor_.Shard == uint64(kv.MetaShard), st.Meta != nil, "the metadata is the meta group's")
			}
		}
		require.EqualValues(t, m.NextReplica-1, len(born))
		require.Empty(t, Birth(m, kv.NodeID(len(s.Nodes)+1)), "a stranger")
	})
}

// TestBirthOfALearner: it does not vote.
func TestBirthOfALearner(t *testing.T) {
	m := found(t, spec(4))
	m.Descriptors[0].Replicas = append(m.Descriptors[0].Replicas, &kvdv1.Replica{Node: 4, Replica: m.NextReplica, Learner: true})
	m.NextReplica++
	st := Birth(m, 4)[0]
	require.Equal(t, []uint64{st.Replica}, st.Learners)
	require.Len(t, st.Voters, 3)
}

func TestFoundingRefusalsNameFieldAndBound(t *testing.T) {
	for field, change := range map[string]func(*FoundingSpec){
		"nodes":             func(s *FoundingSpec) { s.Nodes = make([]FoundingNode, kv.FoundingNodesMax+1) },
		"replicas":          func(s *FoundingSpec) { s.Replicas = 0 },
		"initial shards":    func(s *FoundingSpec) { s.Cuts = make([][]byte, InitialShardsMax) },
		"initial shards[1]": func(s *FoundingSpec) { s.Cuts = [][]byte{[]byte("a"), make([]byte, kv.KeyBytesMax+1)} },
		"cluster":           func(s *FoundingSpec) { s.Cluster = 0 },
		"tick":              func(s *FoundingSpec) { s.ElectionTicks = 1 },
	} {
		s := spec(3)
		change(&s)
		_, err := Founding(s)
		var invalid *kv.InvalidError
		require.ErrorAs(t, err, &invalid, field)
		require.Equal(t, field, invalid.Field)
	}
	s := spec(3)
	s.Nodes[2].Store = s.Nodes[0].Store
	_, err := Founding(s)
	require.ErrorContains(t, err, "store")
}

// TestGeohashCuts: geohash1 gives each of the 32 first characters a shard of its own, the first one with what comes
// before places, the last one with what comes after.
func TestGeohashCuts(t *testing.T) {
	s := spec(3)
	var err error
	s.Cuts, err = InitialCuts("geohash1", nil)
	require.NoError(t, err)
	m, err := NewMap(found(t, s))
	require.NoError(t, err)
	require.Len(t, m.Descriptors(), 32)
	cells := map[string]kv.ShardID{}
	for lat := -87.0; lat < 90; lat += 5 {
		for lon := -179.0; lon < 180; lon += 5 {
			key := geo.Key(geo.Prefix, lat, lon, geo.CharsDefault, "1")
			cell, shard := string(key[:len(geo.Prefix)+1]), m.Lookup(key).Shard
			if known, ok := cells[cell]; ok {
				require.Equal(t, known, shard, "a cell lies in two shards")
			}
			cells[cell] = shard
		}
	}
	shards := map[kv.ShardID]bool{}
	for _, shard := range cells {
		shards[shard] = true
	}
	require.Len(t, cells, 32)
	require.Len(t, shards, 32, "two cells lie in one shard")
	require.Equal(t, m.Lookup([]byte("geo/0")), m.Lookup([]byte("a")))
	require.Equal(t, m.Lookup([]byte("geo/zz")), m.Lookup([]byte("user/1")))
}

func TestTooManyCutsInAFile(t *testing.T) {
	lines := func(n int) func(string) ([]byte, error) {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "%06d\n", i)
		}
		return func(string) ([]byte, error) { return []byte(b.String()), nil }
	}
	cuts, err := InitialCuts("file", lines(InitialShardsMax-1))
	require.NoError(t, err)
	require.Len(t, cuts, InitialShardsMax-1)
	_, err = InitialCuts("file", lines(InitialShardsMax))
	require.ErrorAs(t, err, new(*kv.InvalidError))
	_, err = InitialCuts("file", func(string) ([]byte, error) { return []byte(strings.Repeat("k", kv.KeyBytesMax+1)), nil })
	require.ErrorContains(t, err, "line 1")
	cuts, err = InitialCuts("", nil)
	require.NoError(t, err)
	require.Empty(t, cuts)
}

func TestMapFinds(t *testing.T) {
	s := spec(3, "g", "p")
	s.Nodes[1].Region = "north"
	state := found(t, s)
	m, err := NewMap(state)
	require.NoError(t, err)
	require.Same(t, state, m.State())
	require.EqualValues(t, 1, m.Version())
	require.Len(t, m.Nodes(), 3)
	want := Node{ID: 2, Name: "n2", Address: "h:1", Region: "north", Store: 2}
	n, ok := m.Node(2)
	require.True(t, ok)
	require.Equal(t, want, n)
	n, ok = m.NodeByName("n2")
	require.True(t, ok)
	require.Equal(t, want, n)
	_, ok = m.Node(4)
	require.False(t, ok)
	_, ok = m.NodeByName("n4")
	require.False(t, ok)
	for _, d := range append(slices.Clone(m.Descriptors()), m.Meta()) {
		found, ok := m.Shard(d.Shard)
		require.True(t, ok)
		require.Same(t, d, found)
	}
	_, ok = m.Shard(4)
	require.False(t, ok)
	require.Empty(t, m.Overlapping(kv.Span{Start: []byte("b"), End: []byte("b")}))
	list := m.Overlapping(kv.Span{End: []byte("a")})
	require.Len(t, list, 1)
	_ = append(list, nil)
	require.NotNil(t, m.Descriptors()[1], "who appends to what was given changes the map")
	_, err = NewMap(&kvdv1.MetaState{})
	require.Error(t, err)
}

// sameMap compares a map that was made step by step with one that is made at once.
func sameMap(t require.TestingT, got *Map) {
	want, err := NewMap(got.State())
	require.NoError(t, err)
	require.Equal(t, want.descriptors, got.descriptors)
	require.Equal(t, []any{want.meta, want.nodes, want.byID, want.goals, want.absorbed}, []any{got.meta, got.nodes, got.byID, got.goals, got.absorbed})
	for id := range kv.ShardID(want.state.NextShard) {
		a, wanted := want.Shard(id)
		b, ok := got.Shard(id)
		require.Equal(t, wanted, ok, "shard %d", id)
		require.Equal(t, a, b)
	}
	for _, d := range got.descriptors {
		same, _ := got.Shard(d.Shard)
		require.Same(t, d, same)
	}
}

// TestNextMap: splits and merges one after the other, each map from the one before, which stays as it is.
func TestNextMap(t *testing.T) {
	s := spec(3)
	s.Cuts, _ = InitialCuts("64", nil)
	state := found(t, s)
	m, err := NewMap(state)
	require.NoError(t, err)
	first := m
	for i := range 200 {
		next := successor(state)
		next.Version++
		at := i * 7 % len(state.Descriptors)
		d := copied(state.Descriptors[at])
		d.Epoch.Version++
		list := []*kvdv1.Descriptor{d}
		replaced := 1
		if i%3 == 0 && at+1 < len(state.Descriptors) {
			d.End = state.Descriptors[at+1].End
			replaced = 2
		} else {
			child := copied(d)
			child.Shard, child.Start = next.NextShard, append(slices.Clip(d.Start), byte(255-i))
			if len(d.End) > 0 && string(child.Start) >= string(d.End) {
				continue
			}
			d.End = child.Start
			next.NextShard++
			for _, r := range child.Replicas {
				r.Replica = nextReplica(next)
			}
			list = append(list, child)
		}
		next.Descriptors = slices.Concat(state.Descriptors[:at], list, state.Descriptors[at+replaced:])
		m, err = m.Next(next)
		require.NoError(t, err)
		sameMap(t, m)
		state = next
	}
	sameMap(t, first)

	for name, change := range map[string]func(list []*kvdv1.Descriptor) []*kvdv1.Descriptor{
		"a gap before": func(list []*kvdv1.Descriptor) []*kvdv1.Descriptor {
			list[5].Start = kv.Next(list[5].Start)
			return list
		},
		"a gap after": func(list []*kvdv1.Descriptor) []*kvdv1.Descriptor { list[5].End = kv.Next(list[5].Start); return list },
		"no start":    func(list []*kvdv1.Descriptor) []*kvdv1.Descriptor { return list[1:] },
		"no end":      func(list []*kvdv1.Descriptor) []*kvdv1.Descriptor { return list[:len(list)-1] },
		"one is gone": func(list []*kvdv1.Descriptor) []*kvdv1.Descriptor { return slices.Delete(list, 5, 6) },
		"two voters": func(list []*kvdv1.Descriptor) []*kvdv1.Descriptor {
			list[5].Replicas = list[5].Replicas[:2]
			return list
		},
		"an end in it all": func(list []*kvdv1.Descriptor) []*kvdv1.Descriptor { list[5].End = nil; return list },
		"everything anew, with a gap": func(list []*kvdv1.Descriptor) []*kvdv1.Descriptor {
			for i := range list {
				list[i] = copied(list[i])
			}
			return slices.Delete(list, 5, 6)
		},
	} {
		next := successor(state)
		next.Descriptors = slices.Clone(state.Descriptors)
		next.Descriptors[5] = copied(next.Descriptors[5])
		next.Descriptors = change(next.Descriptors)
		_, err := m.Next(next)
		require.Error(t, err, name)
	}
	next := successor(state)
	next.Nodes = nil
	_, err = m.Next(next)
	require.Error(t, err, "no nodes")
}

func TestMapFindsGoalsAndRules(t *testing.T) {
	m := five(t)
	done(t, m, wanting(mergeGoal(shard(m, 1), 2)))
	done(t, m, wanting(splitGoal(shard(m, 4), "z")))
	done(t, m, draining(5, true))
	done(t, m, ruling("g", "", "north"))
	x, err := NewMap(m.State().Meta)
	require.NoError(t, err)
	require.Len(t, x.Goals(), 2)
	for shard, goal := range map[kv.ShardID]uint64{1: 1, 2: 1, 4: 2} {
		g, ok := x.Goal(shard)
		require.True(t, ok)
		require.Equal(t, goal, g.Id)
	}
	_, ok := x.Goal(3)
	require.False(t, ok)
	n, _ := x.Node(5)
	require.True(t, n.Draining)
	n, _ = x.Node(4)
	require.False(t, n.Draining)
	require.Len(t, x.Rules(), 1)
	require.Equal(t, "g", string(x.RuleFor(kv.Span{Start: []byte("f")}).GetPrefix()))
	require.Equal(t, [][]byte{[]byte("g"), []byte("h")}, x.RuleCuts(kv.Span{}))
	d := copied(shard(m, 1))
	d.End, d.Epoch.Version = shard(m, 2).End, 2
	done(t, m, reporting(d))
	x, err = x.Next(m.State().Meta)
	require.NoError(t, err)
	a, ok := x.Absorbed(2)
	require.True(t, ok)
	require.EqualValues(t, 1, a.Absorber)
	_, ok = x.Absorbed(1)
	require.False(t, ok)
}

func BenchmarkNextMap(b *testing.B) {
	s := spec(5)
	s.Cuts, _ = InitialCuts(fmt.Sprint(InitialShardsMax), nil)
	state := found(b, s)
	m, err := NewMap(state)
	require.NoError(b, err)
	next := successor(state)
	next.Descriptors = slices.Clone(state.Descriptors)
	next.Descriptors[99] = copied(next.Descriptors[99])
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Next(next); err != nil {
			b.Fatal(err)
		}
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	s := spec(3)
	s.Cuts, _ = InitialCuts("1000", nil)
	m, err := NewMap(found(t, s))
	require.NoError(t, err)
	key := []byte("some key")
	require.Zero(t, testing.AllocsPerRun(100, func() { m.Lookup(key) }))
}

func TestSettingsTable(t *testing.T) {
	require.True(t, slices.IsSortedFunc(Definitions, func(a, b Definition) int { return strings.Compare(a.Name, b.Name) }))
	standard := SettingsOf(nil)
	for _, d := range Definitions {
		require.NotEmpty(t, d.Doc)
		require.NotEmpty(t, d.Bound)
		require.NoError(t, CheckSetting(d.Name, standard.Value(d.Name)), "what is shown can be set")
		require.Equal(t, d.Default, standard.Value(d.Name), "the default is shown in two ways")
		require.NotContains(t, d.Bound, "0s")
		for _, bad := range []string{"x", "-1", " ", "1e99", "99999999999999999999", "-1s", "9999999h", "TRUE"} {
			var invalid *kv.InvalidError
			require.ErrorAs(t, CheckSetting(d.Name, bad), &invalid, "%s = %q", d.Name, bad)
			require.Equal(t, d.Name, invalid.Field)
			require.Contains(t, invalid.Bound, d.Bound)
		}
	}
	m := &kvdv1.MetaState{Settings: []*kvdv1.SettingValue{
		{Name: LeaderBalance, Value: "false"}, {Name: DiskStallExit, Value: "1m"}, {Name: "of a newer version", Value: "7"},
		{Name: DiskStallHandover, Value: "out of its bound"}, nil,
	}}
	s := SettingsOf(m)
	require.True(t, standard.Bool(LeaderBalance))
	require.False(t, s.Bool(LeaderBalance))
	require.Equal(t, "1m", s.Value(DiskStallExit))
	require.Equal(t, standard.Duration(DiskStallHandover), s.Duration(DiskStallHandover))
	require.Less(t, standard.Duration(DiskStallHandover), standard.Duration(DiskStallExit))
	require.Equal(t, standard.Int(DiskReserve), s.Int(DiskReserve))
}

// TestMergeStaysBelowSplit: whatever is set, what was just split is not merged for it, and what was merged is not split.
func TestMergeStaysBelowSplit(t *testing.T) {
	of := func(list ...string) *Settings {
		m := &kvdv1.MetaState{}
		for i := 0; i < len(list); i += 2 {
			require.NoError(t, CheckSetting(list[i], list[i+1]))
			m.Settings = append(m.Settings, &kvdv1.SettingValue{Name: list[i], Value: list[i+1]})
		}
		return SettingsOf(m)
	}
	require.EqualValues(t, kv.SplitBytes/8, of().MergeSize())
	require.EqualValues(t, 625, of().MergeLoad())
	require.EqualValues(t, 1<<20, of(SplitSize, "8388608").MergeSize())
	require.EqualValues(t, 4<<20, of(SplitSize, "8388608", MergeSize, "7000000").MergeSize())
	require.EqualValues(t, 77, of(MergeLoad, "77").MergeLoad())
	require.EqualValues(t, 50, of(SplitLoad, "100", MergeLoad, "500").MergeLoad())
}

func TestSettingsWithGaps(t *testing.T) {
	for _, name := range []string{Replicas, MetaVoters} {
		for _, good := range []string{"1", "3", "5"} {
			require.NoError(t, CheckSetting(name, good))
		}
		for _, bad := range []string{"0", "2", "4", "7"} {
			require.ErrorContains(t, CheckSetting(name, bad), name+": 1, 3 or 5")
		}
	}
	require.NoError(t, CheckSetting(SleepAfter, "0"))
	require.NoError(t, CheckSetting(SleepAfter, "1s"))
	require.ErrorContains(t, CheckSetting(SleepAfter, "1ms"), "0, or a time from 1s")
	require.ErrorContains(t, CheckSetting(SplitAge, "0"), "a time from 1s")
	off := SettingsOf(&kvdv1.MetaState{Settings: []*kvdv1.SettingValue{{Name: SleepAfter, Value: "0"}}})
	require.Zero(t, off.Duration(SleepAfter))
	require.NoError(t, CheckSetting(SleepAfter, off.Value(SleepAfter)), "what is shown can be set")
}

// FuzzCheck: whatever bytes a store gives for metadata, they are refused, or make a map that covers every key once, by
// shards that can be found, with replicas on nodes that there are or were.
func FuzzCheck(f *testing.F) {
	for _, s := range []FoundingSpec{spec(1), spec(3, "g", "p"), spec(5, "a", "b", "c")} {
		b, err := found(f, s).MarshalVT()
		require.NoError(f, err)
		f.Add(b, []byte("key"))
	}
	f.Fuzz(func(t *testing.T, b, key []byte) {
		m := &kvdv1.MetaState{}
		if m.UnmarshalVT(b) != nil || Check(m) != nil {
			return
		}
		covers(t, m, key)
	})
}

// covers checks what Check promises, in another way.
func covers(t require.TestingT, m *kvdv1.MetaState, key []byte) {
	x, err := NewMap(m)
	require.NoError(t, err)
	keys := [][]byte{key, nil}
	for _, d := range x.Descriptors() {
		keys = append(keys, d.Span.Start, d.Span.End, kv.Next(d.Span.Start))
	}
	for _, key := range keys {
		var holders []kv.ShardID
		for _, d := range x.Descriptors() {
			if d.Span.Contains(key) {
				holders = append(holders, d.Shard)
			}
		}
		require.Equal(t, []kv.ShardID{x.Lookup(key).Shard}, holders, "%q is in one shard", key)
	}
	replicas := map[kv.ReplicaID]bool{}
	for _, d := range append(slices.Clone(x.Descriptors()), x.Meta()) {
		known, ok := x.Shard(d.Shard)
		require.True(t, ok)
		require.Same(t, d, known, "two shards have an id")
		require.Equal(t, 1, d.Voters()%2)
		for _, r := range d.Replicas {
			require.Less(t, uint64(r.Node), m.NextNode, "a node that there never was")
			require.False(t, replicas[r.Replica], "an id is used twice")
			replicas[r.Replica] = true
		}
	}
	for _, n := range x.Nodes() {
		byName, ok := x.NodeByName(n.Name)
		require.True(t, ok)
		require.Equal(t, n, byName, "two nodes have a name")
		Birth(m, n.ID)
	}
	SettingsOf(m)
}

// TestCheckAgainstDamage: descriptors, replicas and ids that were shuffled, dropped, doubled and changed are refused or
// still cover everything.
func TestCheckAgainstDamage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := found(t, spec(rapid.IntRange(1, 5).Draw(t, "nodes"), "b", "d", "f"))
		refused := false
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			if len(m.Descriptors) == 0 || len(m.Nodes) == 0 {
				break
			}
			i := rapid.IntRange(0, len(m.Descriptors)-1).Draw(t, "which")
			d, cut := m.Descriptors[i], []byte(rapid.StringMatching(`[a-g]?`).Draw(t, "cut"))
			id := rapid.Uint64Range(0, 15).Draw(t, "id")
			switch rapid.IntRange(0, 9).Draw(t, "change") {
			case 0:
				d.Start = cut
			case 1:
				d.End = cut
			case 2:
				d.Shard = id
			case 3:
				m.Descriptors = slices.Delete(m.Descriptors, i, i+1)
			case 4:
				m.Descriptors = slices.Insert(m.Descriptors, i, proto.Clone(d).(*kvdv1.Descriptor))
			case 5:
				d.Replicas = append(d.Replicas, &kvdv1.Replica{Node: id, Replica: m.NextReplica, Learner: id%2 == 0})
				m.NextReplica++
			case 6:
				d.Replicas = d.Replicas[:len(d.Replicas)-min(1, len(d.Replicas))]
			case 7:
				m.Nodes = slices.Delete(m.Nodes, 0, 1)
			case 8:
				m.NextShard, m.NextReplica = id, 40
			case 9: // A split, as one should be.
				child := proto.Clone(d).(*kvdv1.Descriptor)
				child.Shard, child.Start = m.NextShard, append(slices.Clone(d.Start), 'a')
				m.NextShard++
				d.End = child.Start
				for _, r := range child.Replicas {
					r.Replica = m.NextReplica
					m.NextReplica++
				}
				m.Descriptors = slices.Insert(m.Descriptors, i+1, child)
			}
		}
		refused = Check(m) != nil
		if !refused {
			covers(t, m, []byte(rapid.StringMatching(`[a-h]{0,2}`).Draw(t, "key")))
		}
	})
}

func BenchmarkNewMap(b *testing.B) {
	s := spec(5)
	s.Cuts, _ = InitialCuts(fmt.Sprint(InitialShardsMax), nil)
	m := found(b, s)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewMap(m); err != nil {
			b.Fatal(err)
		}
	}
}
