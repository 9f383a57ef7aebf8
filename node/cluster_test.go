package node_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/internal/test"
	"github.com/kvdstore/kvd/kv"
)

type cluster struct {
	*test.Cluster
	t *testing.T
}

func put(key, value string) *kv.Command {
	return &kv.Command{Op: kv.OpPut, Key: []byte(key), Value: []byte(value)}
}

func (c cluster) put(i int, key, value string) {
	r, _, err := c.Nodes[i].Write(c.Context(), kv.Route{}, put(key, value))
	require.NoError(c.t, err)
	require.Equal(c.t, kv.Done, r.Status)
}

func (c cluster) get(i int, key string) string {
	rec, found, _, err := c.Nodes[i].Get(c.Context(), kv.Route{}, []byte(key), kv.Linearizable)
	require.NoError(c.t, err)
	if !found {
		return ""
	}
	return string(rec.Value)
}

func TestSingleNode(t *testing.T) {
	c := cluster{test.New(t, 1, "m"), t}
	c.StartAll()
	c.put(0, "a", "1")
	c.put(0, "z", "2")
	require.Equal(t, "1", c.get(0, "a"))
	require.Equal(t, "", c.get(0, "b"))
	c.Stop(0, false)
	require.NoError(t, <-c.Start(0))
	require.Equal(t, "1", c.get(0, "a"))
	require.Equal(t, "2", c.get(0, "z"))
}

func TestThreeNodes(t *testing.T) {
	c := cluster{test.New(t, 3, "g", "p"), t}
	c.StartAll()
	for i := range 3 {
		for _, k := range []string{"a", "h", "q"} {
			c.put(i, fmt.Sprintf("%s%d", k, i), fmt.Sprint(i))
		}
	}
	for i := range 3 {
		for j := range 3 {
			require.Equal(t, fmt.Sprint(j), c.get(i, fmt.Sprintf("h%d", j)))
		}
	}
	chunk, err := c.Nodes[1].ScanChunk(c.Context(), kv.Route{}, kv.ScanRequest{Span: kv.PrefixSpan([]byte("q"))})
	require.NoError(t, err)
	require.Len(t, chunk.Items, 3)
	require.Nil(t, chunk.Resume)
	for i := range 3 { // Two of them ask the third.
		chunk, err := c.Nodes[i].ScanChunk(c.Context(), kv.Route{}, kv.ScanRequest{Span: kv.PrefixSpan([]byte("q")), Bytes: 1})
		require.NoError(t, err)
		require.Len(t, chunk.Items, 1)
		require.Equal(t, "q1", string(chunk.Resume))
	}

	c.Stop(0, true)
	c.put(1, "a9", "nine")
	require.Equal(t, "nine", c.get(2, "a9"))
	require.NoError(t, <-c.Start(0))
	require.Equal(t, "nine", c.get(0, "a9"))
	require.NoError(t, c.Nodes[2].SetSetting(c.Context(), "log-keep", "100"))
	shards, silent, err := c.Nodes[0].Shards(c.Context())
	require.NoError(t, err)
	require.Empty(t, silent)
	require.Len(t, shards, 3)
}

// TestLaggardComesBackBySnapshot: the log is truncated while a node is away.
func TestLaggardComesBackBySnapshot(t *testing.T) {
	c := cluster{test.New(t, 3), t}
	c.StartAll()
	require.NoError(t, c.Nodes[0].SetSetting(c.Context(), "log-keep", "8"))
	c.put(0, "before", "x")
	c.Stop(2, true)
	for i := range 300 {
		c.put(0, fmt.Sprintf("k%d", i), "v")
	}
	require.Eventually(t, func() bool {
		st, err := c.Nodes[0].Local(c.Context())
		return err == nil && st.Local[1].Truncated > 200
	}, 20*time.Second, 50*time.Millisecond)
	require.NoError(t, <-c.Start(2))
	require.Eventually(t, func() bool {
		rec, found, _, err := c.Nodes[2].Get(c.Context(), kv.Route{}, []byte("k299"), kv.Eventual)
		return err == nil && found && string(rec.Value) == "v"
	}, 20*time.Second, 50*time.Millisecond)
}

// TestNoLeader: a request for a shard whose leader this node does not find is surely not done, and its caller hears so
// long before its deadline: another node had better be asked.
func TestNoLeader(t *testing.T) {
	c := cluster{test.New(t, 3), t}
	c.StartAll()
	c.put(0, "a", "1")
	c.Stop(1, true)
	c.Stop(2, true)
	require.Eventually(t, func() bool { return c.Nodes[0].Leader(1) == 0 }, 20*time.Second, 10*time.Millisecond)
	_, _, err := c.Nodes[0].Write(t.Context(), kv.Route{}, put("a", "2"))
	require.ErrorAs(t, err, new(*kv.NotLeaderError))
	require.Equal(t, kv.NotDone, kv.OutcomeOf(err))
	_, _, _, err = c.Nodes[0].Get(t.Context(), kv.Route{}, []byte("a"), kv.Linearizable)
	require.ErrorAs(t, err, new(*kv.NotLeaderError))
}

// TestRegions: every node's region is in the map, whoever made the founding record; also one that it has later.
func TestRegions(t *testing.T) {
	c := cluster{test.New(t, 3), t}
	c.Regions = []string{"north", "south", "east"}
	c.StartAll()
	known := func() bool {
		list, err := c.Nodes[1].Node.Nodes(t.Context())
		for i, x := range list {
			if x.GetNode().GetRegion() != c.Regions[i] {
				return false
			}
		}
		return err == nil && len(list) == 3
	}
	require.Eventually(t, known, 20*time.Second, 20*time.Millisecond)
	c.Stop(2, true)
	c.Regions[2] = "west"
	require.NoError(t, <-c.Start(2))
	require.Eventually(t, known, 20*time.Second, 20*time.Millisecond)
}

// TestClockAhead: a node whose clock is far ahead takes what lives for what should have expired (R5), and asks the leader
// also for reads that any replica may answer.
func TestClockAhead(t *testing.T) {
	c := cluster{test.New(t, 3), t}
	c.StartAll()
	_, _, err := c.Nodes[0].Write(c.Context(), kv.Route{}, &kv.Command{Op: kv.OpPut, Key: []byte("k"), Value: []byte("v"), TTL: time.Hour.Milliseconds()})
	require.NoError(t, err)
	_, err = c.Nodes[0].TransferLeader(c.Context(), &kvdv1.TransferLeaderRequest{Shard: 1, ToNode: uint64(c.Nodes[0].ID())})
	require.NoError(t, err)
	for i, n := range c.Nodes {
		if i == 0 {
			continue
		}
		require.Eventually(t, func() bool {
			_, found, _, err := n.Get(c.Context(), kv.Route{}, []byte("k"), kv.Eventual)
			return err == nil && found
		}, 20*time.Second, 10*time.Millisecond)
		n.SetWall(func() int64 { return time.Now().Add(2 * time.Hour).UnixMilli() })
		require.Equal(t, "v", c.get(i, "k"))
		_, found, _, err := n.Get(c.Context(), kv.Route{}, []byte("k"), kv.Eventual)
		require.NoError(t, err)
		require.True(t, found)
		for _, level := range []kv.Level{kv.Eventual, kv.Linearizable} {
			chunk, err := n.ScanChunk(c.Context(), kv.Route{}, kv.ScanRequest{Span: kv.PrefixSpan([]byte("k")), Level: level})
			require.NoError(t, err)
			require.Len(t, chunk.Items, 1)
		}
	}
}
