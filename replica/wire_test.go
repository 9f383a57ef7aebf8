package replica

import (
	"errors"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

func appendMessage() *kvdv1.RaftMessage {
	return &kvdv1.RaftMessage{
		Shard: 7, From: 1, To: 2, Type: uint32(raftpb.MsgApp), Term: 6, LogTerm: 5, Index: 10, Commit: 10,
		Entries: []*kvdv1.RaftEntry{
			{Term: 5, Index: 11, Data: []byte("a")},
			{Term: 6, Index: 12, Type: uint32(raftpb.EntryConfChangeV2)},
		},
	}
}

func TestWireRoundTrip(t *testing.T) {
	for _, w := range []*kvdv1.RaftMessage{
		appendMessage(),
		{Shard: 1, From: 3, To: 1, Type: uint32(raftpb.MsgVote), Term: 9, LogTerm: 8, Index: 44, Context: []byte("CampaignTransfer")},
		{From: 3, To: 1, Type: uint32(raftpb.MsgAppResp), Term: 9, Index: 44, Reject: true, RejectHint: 40, LogTerm: 3, ToLife: 12, Applied: 39},
		{From: 3, To: 1, Type: uint32(raftpb.MsgHeartbeatResp), Term: 9, Context: []byte{1, 0, 0, 0, 0, 0, 0, 0}, ToLife: 12},
	} {
		m, err := Decode(w)
		if err != nil {
			t.Fatal(err)
		}
		if back := Encode(kv.ShardID(w.GetShard()), m, 12, kv.Index(w.GetApplied())); !proto.Equal(w, back) {
			t.Errorf("%v became %v", w, back)
		}
	}
}

// TestDecodeRefusesCrafted: what would panic raft, or could only come from a stranger, names its field.
func TestDecodeRefusesCrafted(t *testing.T) {
	for field, spoil := range map[string]func(*kvdv1.RaftMessage){
		"type":             func(w *kvdv1.RaftMessage) { w.Type = uint32(raftpb.MsgProp) },
		"from, to":         func(w *kvdv1.RaftMessage) { w.From = w.To },
		"term":             func(w *kvdv1.RaftMessage) { w.Term = 0 },
		"entries":          func(w *kvdv1.RaftMessage) { w.Type = uint32(raftpb.MsgHeartbeat) },
		"context":          func(w *kvdv1.RaftMessage) { w.Context = []byte{1} },
		"entries[0].index": func(w *kvdv1.RaftMessage) { w.Entries[0].Index = 13 },
		"entries[1].index": func(w *kvdv1.RaftMessage) { w.Entries[1].Index = 11 },
		"entries[0].term":  func(w *kvdv1.RaftMessage) { w.Entries[0].Term = 4 },
		"entries[1].term":  func(w *kvdv1.RaftMessage) { w.Entries[1].Term = 7 },
		"entries[1].type":  func(w *kvdv1.RaftMessage) { w.Entries[1].Type = 9 },
		"entries[0].data":  func(w *kvdv1.RaftMessage) { w.Entries[0].Data = make([]byte, kv.EntryBytesMax+1) },
	} {
		w := appendMessage()
		spoil(w)
		var invalid *kv.InvalidError
		if _, err := Decode(w); !errors.As(err, &invalid) || invalid.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	seed, err := appendMessage().MarshalVT()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		w := &kvdv1.RaftMessage{}
		if w.UnmarshalVT(data) != nil {
			return
		}
		m, err := Decode(w)
		if err != nil {
			return
		}
		for i, e := range m.GetEntries() {
			if e.GetIndex() != m.GetIndex()+1+uint64(i) || e.GetTerm() > m.GetTerm() {
				t.Fatalf("accepted %v", m)
			}
		}
	})
}
