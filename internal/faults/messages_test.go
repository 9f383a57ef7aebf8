//go:build kvdtest

package faults

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// TestKindsOfMessages: each kind has its name.
func TestKindsOfMessages(t *testing.T) {
	order := func(o *kvdv1.Order) *kvdv1.RaftMessage {
		o.Shard = 7
		return &kvdv1.RaftMessage{Order: o}
	}
	for want, m := range map[string]*kvdv1.RaftMessage{
		"MsgApp":            {Shard: 7, Type: uint32(raftpb.MsgApp)},
		"MsgPreVoteResp":    {Shard: 7, Type: uint32(raftpb.MsgPreVoteResp)},
		"checksum":          {Shard: 7, Checksum: &kvdv1.Checksum{}},
		"absent":            {Shard: 7, Absent: true},
		"sleep":             {Shard: 7, Sleep: true},
		"question":          {Question: &kvdv1.Question{Shard: 7}},
		"word":              {Word: &kvdv1.Word{Shard: 7}},
		"order":             order(&kvdv1.Order{}),
		"order of conf":     order(&kvdv1.Order{Step: &kvdv1.Order_Conf{}}),
		"order of split":    order(&kvdv1.Order{Step: &kvdv1.Order_Split{}}),
		"order of transfer": order(&kvdv1.Order{Step: &kvdv1.Order_Transfer{}}),
		"order of merge":    order(&kvdv1.Order{Step: &kvdv1.Order_Merge{}}),
		"order of freeze":   order(&kvdv1.Order{Step: &kvdv1.Order_Freeze{}}),
		"order of unfreeze": order(&kvdv1.Order{Step: &kvdv1.Order_Unfreeze{}}),
	} {
		kind, shard := kindOf(m)
		require.Equal(t, want, kind)
		require.EqualValues(t, 7, shard, want)
		require.Contains(t, Kinds, kind)
	}
	for want, m := range map[string]*kvdv1.RaftMessage{"presides": {Presides: 1}, "report": {Report: &kvdv1.NodeReport{}}} {
		kind, _ := kindOf(m)
		require.Equal(t, want, kind)
		require.Contains(t, Kinds, kind)
	}
}

// TestRules: the first rule that fits a message decides; what is late and copied comes when it is due, and nothing is held back
// beyond the bound.
func TestRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		f := newFaults(dir, vfs.Default).messages
		began := time.Now()
		var mu sync.Mutex
		var came []string
		send := func(to kv.NodeID, m ...*kvdv1.RaftMessage) (now int) {
			return len(f.pass(to, m, func(m *kvdv1.RaftMessage) {
				kind, _ := kindOf(m)
				mu.Lock()
				defer mu.Unlock()
				came = append(came, kind+" after "+time.Since(began).String())
			}))
		}
		vote, ping := &kvdv1.RaftMessage{Shard: 3, Type: uint32(raftpb.MsgVote)}, &kvdv1.RaftMessage{Shard: 3, Type: uint32(raftpb.MsgHeartbeat)}
		other, word := &kvdv1.RaftMessage{Shard: 4, Type: uint32(raftpb.MsgVote)}, &kvdv1.RaftMessage{Word: &kvdv1.Word{Shard: 3}}
		all := []*kvdv1.RaftMessage{vote, ping, other, word}
		require.Equal(t, 4, send(1, all...))
		say(t, dir, "messages", `[{"of": ["MsgVote"], "shards": [3], "lose": true}, {"of": ["MsgVote", "MsgHeartbeat"], "to": [2], "late": "300ms"}, {"of": ["word"], "copies": 2, "over": "1s"}]`)
		began = time.Now()
		require.Equal(t, 3, send(1, all...), "all but the vote of shard 3")
		require.Equal(t, 1, send(2, all...), "the word")
		require.Equal(t, []*kvdv1.RaftMessage{vote, ping, other, word}, all, "the list is the caller's")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.ElementsMatch(t, []string{
			"MsgHeartbeat after 300ms", "MsgVote after 300ms", "word after 500ms", "word after 500ms", "word after 1s", "word after 1s",
		}, came)

		came = nil
		for range heldMax + 5 {
			require.Zero(t, send(2, ping))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, heldMax, len(came))
		require.Zero(t, f.held.Load())

		for _, nonsense := range []string{`[{"of": ["MsgNone"]}]`, `[{"late": "-1s"}]`, `[{"over": "soon"}]`, `[{"copies": 101}]`, `[{"when": 1}]`, `{}`} {
			say(t, dir, "messages", nonsense)
			require.Equal(t, 3, send(1, all...), "nonsense changes nothing: %s", nonsense)
		}
		say(t, dir, "messages", "")
		require.Equal(t, 4, send(2, all...))
	})
}
