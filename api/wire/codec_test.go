package wire

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/encoding"
	standard "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

func samples() []proto.Message {
	return []proto.Message{
		&kvdv1.Envelope{},
		&kvdv1.Envelope{
			ClusterId: 1<<63 + 5, FromNode: 1, ToNode: 2, FromLife: 3, Version: 1,
			Messages: []*kvdv1.RaftMessage{
				{Shard: 7, To: 1, From: 2, Term: 9, Reject: true, Context: []byte("ctx")},
				{Shard: 8, Entries: []*kvdv1.RaftEntry{{Term: 1, Index: 11, Data: bytes.Repeat([]byte("x"), 5000)}}},
			},
		},
		&kvdv1.ForwardResponse{Response: &kvdv1.ForwardResponse_Found{Found: &kvdv1.KeyValue{Key: []byte("k"), Value: []byte("v")}}},
		&grpc_health_v1.HealthCheckRequest{Service: "kvd.v1.KV"},
	}
}

// Both codecs read what either wrote.
func TestCodecAgreesWithTheStandardOne(t *testing.T) {
	codecs := []encoding.CodecV2{Codec(), encoding.GetCodecV2(standard.Name)}
	for _, from := range codecs {
		for _, to := range codecs {
			for _, m := range samples() {
				data, err := from.Marshal(m)
				if err != nil {
					t.Fatal(err)
				}
				got := m.ProtoReflect().New().Interface()
				if err := to.Unmarshal(data, got); err != nil {
					t.Fatal(err)
				}
				data.Free()
				if !proto.Equal(m, got) {
					t.Errorf("%T to %T: sent %v, received %v", from, to, m, got)
				}
			}
		}
	}
}

func TestCodecReplacesTheOldContent(t *testing.T) {
	data, err := Codec().Marshal(&kvdv1.FoundRequest{FromName: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	defer data.Free()
	got := &kvdv1.FoundRequest{StoreId: 9, ListHash: "old"}
	if err := Codec().Unmarshal(data, got); err != nil {
		t.Fatal(err)
	}
	if want := (&kvdv1.FoundRequest{FromName: "n1"}); !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The transport frees the buffers right after Unmarshal; a message that aliased them would change.
func TestCodecDoesNotAliasTheBuffers(t *testing.T) {
	value := bytes.Repeat([]byte("v"), 100)
	data, err := Codec().Marshal(&kvdv1.SnapshotData{Pairs: value})
	if err != nil {
		t.Fatal(err)
	}
	raw := data.Materialize()
	data.Free()
	var got kvdv1.SnapshotData
	if err := Codec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(raw)}, &got); err != nil {
		t.Fatal(err)
	}
	clear(raw)
	if !bytes.Equal(got.Pairs, value) {
		t.Error("the decoded message changed with the buffer")
	}
}

func TestCodecRefusesGarbage(t *testing.T) {
	if err := Codec().Unmarshal(mem.BufferSlice{mem.SliceBuffer([]byte{0xff})}, &kvdv1.Envelope{}); err == nil {
		t.Error("garbage was decoded")
	}
	if _, err := Codec().Marshal("no message"); err == nil {
		t.Error("a string was encoded")
	}
}

func BenchmarkCodec(b *testing.B) {
	m := samples()[1]
	for b.Loop() {
		data, err := Codec().Marshal(m)
		if err != nil {
			b.Fatal(err)
		}
		var got kvdv1.Envelope
		if err := Codec().Unmarshal(data, &got); err != nil {
			b.Fatal(err)
		}
		data.Free()
	}
}
