package wire

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/grpc/encoding"
	standard "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
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

// Messages that would take far more memory than they have bytes are refused before they are decoded.
func TestServerCodecCountsParts(t *testing.T) {
	list := func(field byte, n int) []byte { return bytes.Repeat([]byte{field<<3 | 2, 0}, n) }
	nested := func(field byte, b []byte) []byte {
		return append(protowire.AppendVarint([]byte{field<<3 | 2}, uint64(len(b))), b...)
	}
	most := kv.MessagePartsMax
	for name, c := range map[string]struct {
		data []byte
		into proto.Message
		ok   bool
	}{
		"ops":            {list(1, most), &kvdv1.PipelineRequest{}, true},
		"an op too many": {list(1, most+1), &kvdv1.PipelineRequest{}, false},
		"keys too many":  {list(2, most+1), &kvdv1.BatchGetRequest{}, false},
		// One is the operation, one the Txn.
		"in a txn of an op":      {nested(1, nested(7, list(3, most-2))), &kvdv1.PipelineRequest{}, true},
		"one too many in a txn":  {nested(1, nested(7, list(3, most-1))), &kvdv1.PipelineRequest{}, false},
		"bytes are no parts":     {nested(2, list(1, most+1)), &kvdv1.PutRequest{}, true},
		"more between nodes":     {list(6, most+1), &kvdv1.Envelope{}, true},
		"too many between nodes": {list(6, kv.NodeMessagePartsMax+1), &kvdv1.Envelope{}, false},
	} {
		err := ServerCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(c.data)}, c.into)
		if c.ok && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if invalid := (*kv.InvalidError)(nil); !c.ok && !errors.As(err, &invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// What the server's codec lets through is what the codec decodes.
func TestServerCodecDecodesTheSame(t *testing.T) {
	for _, m := range samples() {
		data, err := Codec().Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		got := m.ProtoReflect().New().Interface()
		if err := ServerCodec().Unmarshal(data, got); err != nil {
			t.Fatal(err)
		}
		data.Free()
		if !proto.Equal(m, got) {
			t.Errorf("%T: sent %v, received %v", m, m, got)
		}
	}
}
