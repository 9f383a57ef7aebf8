package node_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/internal/test"
	"github.com/kvdstore/kvd/kv"
)

// TestWaitsForTheMetaGroup: with the majority of the meta group's voters gone, what would change the metadata was not
// done, and the answer, which comes within the deadline, names those for whom it waits. A dry run needs nobody.
func TestWaitsForTheMetaGroup(t *testing.T) {
	c := cluster{test.New(t, 3, "m"), t}
	c.StartAll()
	c.Stop(1, true)
	c.Stop(2, true)
	split := &kvdv1.SplitShardRequest{Shard: 1, Key: []byte("c")}
	var err error
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err = c.Nodes[0].SplitShard(ctx, split)
		require.NoError(t, ctx.Err(), "it was answered too late")
		return err != nil && kv.OutcomeOf(err) == kv.NotDone && kv.Retryable(err)
	}, 30*time.Second, 10*time.Millisecond)
	const waits = "waits for a majority of the meta group's 3 voters: n2 (node 2) and n3 (node 3) do not answer"
	require.ErrorContains(t, err, waits)
	split.DryRun = true
	resp, err := c.Nodes[0].SplitShard(t.Context(), split)
	require.NoError(t, err)
	require.NotEmpty(t, resp.GetSteps())
	why, err := c.Nodes[0].Why(t.Context(), &kvdv1.WhyRequest{Shard: 1})
	require.NoError(t, err)
	require.Contains(t, why.GetProgress(), waits)
	_, err = c.Nodes[0].TransferLeader(t.Context(), &kvdv1.TransferLeaderRequest{Shard: 1, ToNode: 2})
	require.ErrorAs(t, err, new(*kv.NotLeaderError))
}

// TestTransferLeader: any node takes it, and answers when the leadership is where it was asked to be; at the deadline it
// was not done.
func TestTransferLeader(t *testing.T) {
	c := cluster{test.New(t, 3), t}
	c.StartAll()
	require.NoError(t, c.Nodes[0].SetSetting(c.Context(), "leader-balance", "false"))
	for i := range 6 {
		to := uint64(i%3 + 1)
		resp, err := c.Nodes[(i+1)%3].TransferLeader(c.Context(), &kvdv1.TransferLeaderRequest{Shard: 1, ToNode: to})
		require.NoError(t, err)
		require.Equal(t, to, resp.GetLeader())
		require.Equal(t, kv.NodeID(to), c.Nodes[to-1].Leader(1))
	}
	c.Stop(0, true)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := c.Nodes[1].TransferLeader(ctx, &kvdv1.TransferLeaderRequest{Shard: 1, ToNode: 1})
	require.NoError(t, ctx.Err(), "it was answered too late")
	require.ErrorContains(t, err, "n1 (node 1) has not taken it over")
	require.Equal(t, kv.NotDone, kv.OutcomeOf(err))
}

// TestBackupOfAShard: what the chunks hold is the shard from the key on, as of one moment; another version is told the
// right descriptor, and who does not lead tells who does.
func TestBackupOfAShard(t *testing.T) {
	c := cluster{test.New(t, 3, "m"), t}
	c.StartAll()
	for _, key := range []string{"a", "b", "c", "z"} {
		c.put(0, key, "value of "+key)
	}
	leader := func() int { return int(c.Nodes[0].Leader(1)) - 1 }
	require.Eventually(t, func() bool { return leader() >= 0 }, 20*time.Second, 5*time.Millisecond)
	var chunks []*kvdv1.BackupChunk
	gather := func(chunk *kvdv1.BackupChunk) error {
		chunks = append(chunks, chunk)
		return nil
	}
	for start, keys := range map[string]uint64{"": 3, "b": 2, "d": 0} {
		chunks = nil
		require.NoError(t, c.Nodes[leader()].Backup(c.Context(), &kvdv1.BackupRequest{Shard: 1, Version: 1, Start: []byte(start)}, gather))
		require.EqualValues(t, 1, chunks[0].GetShard().GetDescriptor_().GetShard())
		last := chunks[len(chunks)-1]
		require.True(t, last.GetLast())
		require.Equal(t, keys, last.GetKeys())
	}
	stale := new(*kv.StaleEpochError)
	for name, r := range map[string]*kvdv1.BackupRequest{
		"an old version": {Shard: 1, Version: 7}, "not in the shard": {Shard: 1, Version: 1, Start: []byte("m")}, "no such shard": {Shard: 9, Version: 1},
	} {
		require.ErrorAs(t, c.Nodes[leader()].Backup(c.Context(), r, gather), stale, name)
		require.NotEmpty(t, (*stale).Descriptors)
	}
	require.ErrorAs(t, c.Nodes[(leader()+1)%3].Backup(c.Context(), &kvdv1.BackupRequest{Shard: 1, Version: 1}, gather), new(*kv.NotLeaderError))
	require.ErrorAs(t, c.Nodes[0].Backup(c.Context(), &kvdv1.BackupRequest{}, gather), new(*kv.InvalidError))
	err := c.Nodes[leader()].Backup(c.Context(), &kvdv1.BackupRequest{Shard: 1, Version: 1}, func(*kvdv1.BackupChunk) error { return kv.ErrStopping })
	require.ErrorIs(t, err, kv.ErrStopping)
}
