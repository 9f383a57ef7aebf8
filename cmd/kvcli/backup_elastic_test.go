package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/backup"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/internal/test"
	"github.com/kvdstore/kvd/kv"
)

// shifting is a backup that has the shards changed before each of its parts.
type shifting struct {
	*backup.Writer
	change func(start string) error
}

func (s shifting) Begin(span kv.Span, shard *kvdv1.ShardInfo) error {
	if err := s.change(string(span.Start)); err != nil {
		return err
	}
	return s.Writer.Begin(span, shard)
}

// TestBackupOfShiftingShards: each key is saved once, though shards are split, merged, moved and led by others between any
// two parts.
func TestBackupOfShiftingShards(t *testing.T) {
	cluster := test.New(t, 4, "k2", "k4", "k6", "k8")
	cluster.StartAll()
	cl, err := client.New(client.Config{Endpoints: cluster.Addresses()})
	require.NoError(t, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	want := map[string]string{}
	for i := range 1000 {
		want[fmt.Sprintf("k%03d", i)] = fmt.Sprint(i)
	}
	p, wrote := cl.Pipeline(), sync.WaitGroup{}
	for key, value := range want {
		wrote.Add(1)
		p.GoPut(ctx, []byte(key), []byte(value), func(_ client.PutResult, err error) {
			defer wrote.Done()
			if err != nil {
				t.Error(err)
			}
		})
	}
	wrote.Wait()
	reached := func(resp *kvdv1.GoalResponse, err error) error {
		for err == nil {
			st, asked := cl.GoalStatus(ctx, &kvdv1.GoalStatusRequest{Goal: resp.GetGoal().GetId()})
			switch err = asked; {
			case st.GetState() == kvdv1.GoalStatusResponse_DONE:
				return nil
			case err == nil && st.GetState() != kvdv1.GoalStatusResponse_OPEN:
				return errors.New(st.GetProgress())
			}
		}
		return err
	}
	at := func(key string) *kvdv1.Descriptor {
		why, err := cl.Why(ctx, &kvdv1.WhyRequest{Key: []byte(key)})
		require.NoError(t, err)
		return why.GetShard().GetDescriptor_()
	}
	split := func(key string) error { return reached(cl.SplitShard(ctx, &kvdv1.SplitShardRequest{Key: []byte(key)})) }
	merge := func(key string) error {
		for {
			err := reached(cl.MergeShard(ctx, &kvdv1.MergeShardRequest{Shard: at(key).GetShard()}))
			if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "one with a right neighbour") {
				return err
			}
			time.Sleep(50 * time.Millisecond) // A node that the meta group's leader did not answer in time has an older map.
		}
	}
	move := func(key string) error {
		d, to := at(key), uint64(1)
		for slices.ContainsFunc(d.GetReplicas(), func(r *kvdv1.Replica) bool { return r.GetNode() == to }) {
			to++
		}
		return reached(cl.MoveReplica(ctx, &kvdv1.MoveReplicaRequest{Shard: d.GetShard(), FromNode: d.GetReplicas()[0].GetNode(), ToNode: to}))
	}
	// The parts that begin, and what is done to the shards then.
	steps := map[string]func() error{
		"": func() error { return split("k3") }, "k2": func() error { return merge("k4") }, "k3": func() error { return move("k9") },
		"k4": func() error { return split("k9") }, "k8": func() error { return merge("k8") }, "k9": func() error { return nil },
	}
	begun := map[string]bool{}
	path := filepath.Join(t.TempDir(), "all")
	w, err := backup.Create(path, &kvdv1.BackupHeader{BackupId: 1})
	require.NoError(t, err)
	require.NoError(t, cl.Backup(ctx, shifting{w, func(start string) error {
		again := begun[start]
		begun[start] = true
		if again { // The stream broke: what is to be done was done.
			return nil
		}
		step, known := steps[start]
		if !known {
			return fmt.Errorf("no part was to begin at %q", start)
		}
		return step()
	}}))
	require.NoError(t, w.Close())
	require.Len(t, begun, len(steps))
	got := map[string]string{}
	_, err = backup.Read(path, backup.Visitor{Pair: func(key []byte, rec kv.Record) error {
		got[string(key)] = string(rec.Value)
		return nil
	}})
	require.NoError(t, err)
	require.Equal(t, want, got)
}
