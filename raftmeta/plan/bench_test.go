package plan

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/raftmeta"
)

// BenchmarkStep is a round over 10,000 shards at rest; it runs on the loop, once a second.
func BenchmarkStep(b *testing.B) {
	state := metaOf(3)
	reports := [4]*kvdv1.NodeReport{1: {}, 2: {}, 3: {}}
	const n = 10_000
	for i := range uint64(n) {
		d := &kvdv1.Descriptor{Shard: i + 1, Epoch: &kvdv1.Epoch{Version: 1, Config: 1}, Replicas: []*kvdv1.Replica{
			replica(1, 1000+3*i), replica(2, 1001+3*i), replica(3, 1002+3*i),
		}}
		if i > 0 {
			d.Start = fmt.Appendf(nil, "%06d", i)
			state.Descriptors[i-1].End = d.Start
		}
		state.Descriptors = append(state.Descriptors, d)
		report := &reports[1+i%3].Shards
		*report = append(*report, &kvdv1.ShardReport{Descriptor_: d, Term: 6, Bytes: 30 << 20, Asleep: true, Active: []uint64{1000 + 3*i}})
	}
	state.NextShard, state.NextReplica = n+1, 100_000
	m, err := raftmeta.NewMap(state)
	require.NoError(b, err)
	r, p, now := NewReports(0), New(0), time.Duration(0)
	settings := raftmeta.SettingsOf(state)
	for b.Loop() {
		now += time.Second
		for node := 1; node <= 3; node++ {
			r.Take(m.Nodes()[node-1].ID, reports[node], now)
		}
		p.Step(now, 0, m, settings, r)
	}
}
