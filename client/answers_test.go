package client

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/encoding"
	standard "google.golang.org/grpc/encoding/proto"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
)

// drawResult draws any result that a node may give.
func drawResult(t *rapid.T) *kvdv1.PipelineResult {
	number := rapid.Uint64Range(0, 3)
	var h *kvdv1.ResponseHeader
	if rapid.Bool().Draw(t, "header") {
		h = &kvdv1.ResponseHeader{Shard: number.Draw(t, "shard"), Revision: number.Draw(t, "shard's revision"), Node: number.Draw(t, "node")}
		if rapid.Bool().Draw(t, "epoch") {
			h.Epoch = &kvdv1.Epoch{Version: number.Draw(t, "version"), Config: number.Draw(t, "config")}
		}
		for range rapid.IntRange(0, 2).Draw(t, "descriptors") {
			h.Descriptors = append(h.Descriptors, &kvdv1.Descriptor{Shard: number.Draw(t, "shard")})
		}
	}
	r := &kvdv1.PipelineResult{Id: number.Draw(t, "id")}
	yes, revision := rapid.Bool().Draw(t, "yes"), number.Draw(t, "revision")
	switch rapid.IntRange(0, 6).Draw(t, "kind") {
	case 0:
		value := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "value")
		r.Result = &kvdv1.PipelineResult_Get{Get: &kvdv1.GetResponse{Header: h, Found: yes, Value: value, Revision: revision, ExpireAtMs: int64(revision)}}
	case 1:
		r.Result = &kvdv1.PipelineResult_Put{Put: &kvdv1.PutResponse{Header: h, Succeeded: yes, Revision: revision}}
	case 2:
		r.Result = &kvdv1.PipelineResult_Delete{Delete: &kvdv1.DeleteResponse{Header: h, Succeeded: yes, Found: !yes, Revision: revision}}
	case 3:
		r.Result = &kvdv1.PipelineResult_Increment{Increment: &kvdv1.IncrementResponse{Header: h, Value: int64(revision), Revision: revision}}
	case 4:
		r.Result = &kvdv1.PipelineResult_Txn{Txn: &kvdv1.TxnResponse{Header: h, Succeeded: yes, Revision: revision}}
	case 5:
		r.Result = &kvdv1.PipelineResult_Error{Error: &kvdv1.PipelineError{Code: int32(revision), Message: "why", Detail: &kvdv1.ErrorDetail{Shard: revision}}}
	}
	return r
}

// withoutEmpty is a result as those see it who use it: an epoch of zeros is none.
func withoutEmpty(r *kvdv1.PipelineResult) *kvdv1.PipelineResult {
	c := proto.CloneOf(r)
	if h := resultHeader(c); h != nil && h.Epoch.GetVersion() == 0 && h.Epoch.GetConfig() == 0 {
		h.Epoch = nil
	}
	return c
}

// TestAnswers: each answer is decoded as it was given, whatever was decoded into the same memory before it, by either codec;
// and what was given out of an earlier one stays as it was.
func TestAnswers(t *testing.T) {
	codecs := []encoding.CodecV2{wire.Codec(), encoding.GetCodecV2(standard.Name)}
	rapid.Check(t, func(t *rapid.T) {
		var m answers
		var memory answerMemory
		type kept struct{ value, was []byte }
		var values []kept
		for range rapid.IntRange(1, 4).Draw(t, "messages") {
			sent := &kvdv1.PipelineResponse{}
			for range rapid.IntRange(0, 6).Draw(t, "results") {
				sent.Results = append(sent.Results, drawResult(t))
			}
			data, err := wire.Codec().Marshal(sent)
			if err != nil {
				t.Fatal(err)
			}
			if err := rapid.SampledFrom(codecs).Draw(t, "codec").Unmarshal(data, &m); err != nil {
				t.Fatal(err)
			}
			data.Free()
			list, err := m.split(nil)
			if err != nil || len(list) != len(sent.Results) {
				t.Fatalf("%d answers (%v) of %d", len(list), err, len(sent.Results))
			}
			for i, a := range list {
				got, err := memory.decode(&a)
				if err != nil {
					t.Fatal(err)
				}
				want := sent.Results[i]
				if a.id != want.Id {
					t.Fatalf("the id %d was read as %d", want.Id, a.id)
				}
				if resultHeader(want) == nil && resultHeader(got) != nil {
					want = proto.CloneOf(want) // Without a header it is one of zeros.
					setHeader(want)
				}
				if !proto.Equal(withoutEmpty(got), withoutEmpty(want)) {
					t.Fatalf("%v was decoded as %v", want, got)
				}
				value := got.GetGet().GetValue()
				values = append(values, kept{value, bytes.Clone(value)})
			}
		}
		for _, x := range values {
			if !bytes.Equal(x.value, x.was) {
				t.Fatal("a value that was given out has changed")
			}
		}
	})
}

// setHeader gives a result an empty header.
func setHeader(r *kvdv1.PipelineResult) {
	switch x := r.Result.(type) {
	case *kvdv1.PipelineResult_Get:
		x.Get.Header = &kvdv1.ResponseHeader{}
	case *kvdv1.PipelineResult_Put:
		x.Put.Header = &kvdv1.ResponseHeader{}
	case *kvdv1.PipelineResult_Delete:
		x.Delete.Header = &kvdv1.ResponseHeader{}
	case *kvdv1.PipelineResult_Increment:
		x.Increment.Header = &kvdv1.ResponseHeader{}
	}
}

// FuzzAnswers: whatever comes is decoded, or refused; what both decoders take is decoded.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte{0x0a, 4, 8, 1, 0x1a, 0})
	f.Add([]byte{0x0a, 4, 8, 1, 0x1a, 9})
	f.Fuzz(func(t *testing.T, data []byte) {
		var m answers
		if err := m.UnmarshalVT(data); err != nil {
			t.Fatal(err)
		}
		list, err := m.split(nil)
		refused := err != nil
		var memory answerMemory
		for i := range list {
			_, err := memory.decode(&list[i])
			refused = refused || err != nil
		}
		// They do not agree on groups, and on fields of another type.
		good := proto.Unmarshal(data, &kvdv1.PipelineResponse{}) == nil && new(kvdv1.PipelineResponse).UnmarshalVT(data) == nil
		if good && refused {
			t.Fatal("a good message was refused")
		}
	})
}
