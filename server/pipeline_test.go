package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

func getOp(id uint64, key string) *kvdv1.PipelineOp {
	return &kvdv1.PipelineOp{Id: id, Op: &kvdv1.PipelineOp_Get{Get: &kvdv1.GetRequest{Key: []byte(key)}}}
}

func putOp(id uint64, key string) *kvdv1.PipelineOp {
	return &kvdv1.PipelineOp{Id: id, Op: &kvdv1.PipelineOp_Put{Put: &kvdv1.PutRequest{Key: []byte(key), Value: []byte("v")}}}
}

// receiveAll gathers the results until the stream ends.
func receiveAll(stream kvdv1.KV_PipelineClient) (results map[uint64]*kvdv1.PipelineResult, messages int, err error) {
	results = map[uint64]*kvdv1.PipelineResult{}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return results, messages, nil
		}
		if err != nil {
			return results, messages, err
		}
		messages++
		for _, r := range resp.GetResults() {
			if results[r.Id] != nil {
				return results, messages, fmt.Errorf("operation %d was answered twice", r.Id)
			}
			results[r.Id] = r
		}
	}
}

// TestPipelineEveryKind: operations of every kind share a message, each gets its own answer, and half-close drains.
func TestPipelineEveryKind(t *testing.T) {
	m := newTable()
	m.fill("warm")
	_, conn := serve(t, Config{Backend: m})
	stream, err := kvdv1.NewKVClient(conn).Pipeline(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&kvdv1.PipelineRequest{Ops: []*kvdv1.PipelineOp{
		getOp(1, "warm"), getOp(2, "missing"), putOp(3, "new"),
		{Id: 4, Op: &kvdv1.PipelineOp_Delete{Delete: &kvdv1.DeleteRequest{Key: []byte("nothing")}}},
		{Id: 5, Op: &kvdv1.PipelineOp_Increment{Increment: &kvdv1.IncrementRequest{Key: []byte("n"), Delta: 5}}},
		{Id: 6, Op: &kvdv1.PipelineOp_Txn{Txn: &kvdv1.TxnRequest{Then: []*kvdv1.TxnOp{{Op: &kvdv1.TxnOp_Get{Get: &kvdv1.TxnGet{Key: []byte("k")}}}}}}},
		{Id: 7}, getOp(8, ""),
		{Id: 9, Op: &kvdv1.PipelineOp_Get{Get: &kvdv1.GetRequest{Key: []byte("k"), Level: kvdv1.Level_BOUNDED}}},
	}}))
	require.NoError(t, stream.CloseSend())
	got, _, err := receiveAll(stream)
	require.NoError(t, err)
	require.Len(t, got, 9)
	require.Equal(t, "value of warm", string(got[1].GetGet().GetValue()))
	require.False(t, got[2].GetGet().GetFound())
	require.NotNil(t, got[2].GetGet())
	require.True(t, got[3].GetPut().GetSucceeded())
	require.False(t, got[4].GetDelete().GetFound())
	require.EqualValues(t, 5, got[5].GetIncrement().GetValue())
	require.NotNil(t, got[6].GetTxn())
	for id, code := range map[uint64]codes.Code{7: codes.InvalidArgument, 8: codes.InvalidArgument, 9: codes.Unimplemented} {
		require.EqualValues(t, code, got[id].GetError().GetCode())
		require.Equal(t, kvdv1.ErrorDetail_NOT_DONE, got[id].GetError().GetDetail().GetOutcome())
	}
}

// TestPipelineBatches: results that are there together travel together.
func TestPipelineBatches(t *testing.T) {
	m := newTable()
	m.fill("k")
	_, conn := serve(t, Config{Backend: m})
	stream, err := kvdv1.NewKVClient(conn).Pipeline(t.Context())
	require.NoError(t, err)
	const count = 5 * kv.PipelineInFlight
	go func() {
		for first := uint64(0); first < count; first += 512 {
			r := &kvdv1.PipelineRequest{}
			for id := first; id < first+512; id++ {
				r.Ops = append(r.Ops, getOp(id, "k"))
			}
			if stream.Send(r) != nil {
				return
			}
		}
		_ = stream.CloseSend()
	}()
	got, messages, err := receiveAll(stream)
	require.NoError(t, err)
	require.Len(t, got, count)
	require.Less(t, messages, count/2)
}

// TestPipelineDeadlines: an operation that ends at its own deadline is unknown, and holds no other up.
func TestPipelineDeadlines(t *testing.T) {
	m := newTable()
	m.fill("k")
	m.hold = make(chan struct{})
	_, conn := serve(t, Config{Backend: m})
	stream, err := kvdv1.NewKVClient(conn).Pipeline(t.Context())
	require.NoError(t, err)
	late, patient := putOp(1, "late"), putOp(2, "patient")
	late.TimeoutMs, patient.TimeoutMs = 1, 60_000
	require.NoError(t, stream.Send(&kvdv1.PipelineRequest{Ops: []*kvdv1.PipelineOp{late, patient, getOp(3, "k")}}))
	got := map[uint64]*kvdv1.PipelineResult{}
	for len(got) < 2 {
		resp, err := stream.Recv()
		require.NoError(t, err)
		for _, r := range resp.GetResults() {
			got[r.Id] = r
		}
	}
	require.EqualValues(t, codes.DeadlineExceeded, got[1].GetError().GetCode())
	require.Equal(t, kvdv1.ErrorDetail_UNKNOWN, got[1].GetError().GetDetail().GetOutcome())
	require.True(t, got[3].GetGet().GetFound())
	close(m.hold)
	require.NoError(t, stream.CloseSend())
	rest, _, err := receiveAll(stream)
	require.NoError(t, err)
	require.Len(t, rest, 1)
	require.True(t, rest[2].GetPut().GetSucceeded())
}

// scripted is a stream whose client sends what it has, and takes no answer before it is told to.
type scripted struct {
	kvdv1.KV_PipelineServer
	ctx  context.Context
	next func() (*kvdv1.PipelineRequest, error)
	sent func(*kvdv1.PipelineResponse) error
	raw  [][]byte // Messages as they come, instead of next.
}

func (s *scripted) Context() context.Context { return s.ctx }

func (s *scripted) RecvMsg(into any) error {
	var b []byte
	if s.next == nil {
		if len(s.raw) == 0 {
			return io.EOF
		}
		b, s.raw = s.raw[0], s.raw[1:]
	} else {
		r, err := s.next()
		if err != nil {
			return err
		}
		if b, err = r.MarshalVT(); err != nil {
			return err
		}
	}
	return wire.ServerCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, into)
}

func (s *scripted) SendMsg(m any) error {
	data, err := wire.ServerCodec().Marshal(m)
	if err != nil {
		return err
	}
	defer data.Free()
	r := &kvdv1.PipelineResponse{}
	if err := r.UnmarshalVT(data.Materialize()); err != nil {
		return err
	}
	return s.sent(r)
}

// frameOp makes a message of one encoded operation.
func frameOp(b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, opsField, protowire.BytesType), b)
}

func (s *scripted) request(op *kvdv1.PipelineOp) *kvdv1.PipelineRequest {
	return &kvdv1.PipelineRequest{Ops: []*kvdv1.PipelineOp{op}}
}

// TestPipelineIsBounded: a client that sends and takes no answers is not read beyond the bound of operations in flight,
// also when each is answered from memory.
func TestPipelineIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 4 * kv.PipelineInFlight
		m := newTable()
		m.fill("k")
		taken, answers, take := 0, 0, make(chan struct{})
		s := &scripted{ctx: t.Context()}
		s.next = func() (*kvdv1.PipelineRequest, error) {
			if taken++; taken > count {
				return nil, io.EOF
			}
			return s.request(getOp(uint64(taken), "k")), nil
		}
		s.sent = func(r *kvdv1.PipelineResponse) error {
			<-take
			answers += len(r.Results)
			return nil
		}
		ended := make(chan error, 1)
		go func() { ended <- (&service{backend: m}).Pipeline(s) }()
		synctest.Wait() // Nothing can go on until an answer is taken.
		require.LessOrEqual(t, taken, kv.PipelineInFlight+1)
		close(take)
		require.NoError(t, <-ended)
		require.Equal(t, count, answers)
	})
}

// TestPipelineBoundsItsAnswers: few but large answers that nobody takes stop the reader as well.
func TestPipelineBoundsItsAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 64
		m := newTable()
		m.keys["k"] = kv.Record{Value: make([]byte, kv.ValueBytesMax), Revision: 1}
		taken, answers, take := 0, 0, make(chan struct{})
		s := &scripted{ctx: t.Context()}
		s.next = func() (*kvdv1.PipelineRequest, error) {
			if taken++; taken > count {
				return nil, io.EOF
			}
			return s.request(getOp(uint64(taken), "k")), nil
		}
		s.sent = func(r *kvdv1.PipelineResponse) error {
			<-take
			require.LessOrEqual(t, r.SizeVT(), kv.AnswerBytesMax)
			answers += len(r.Results)
			return nil
		}
		ended := make(chan error, 1)
		go func() { ended <- (&service{backend: m}).Pipeline(s) }()
		synctest.Wait()
		require.LessOrEqual(t, taken*kv.ValueBytesMax, 6*kv.AnswerBytesMax)
		close(take)
		require.NoError(t, <-ended)
		require.Equal(t, count, answers)
	})
}

// TestPipelineRefusesALongMessage: with an error that names the bound, after the answers to what came before.
func TestPipelineRefusesALongMessage(t *testing.T) {
	m := newTable()
	m.fill("k")
	_, conn := serve(t, Config{Backend: m})
	stream, err := kvdv1.NewKVClient(conn).Pipeline(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&kvdv1.PipelineRequest{Ops: []*kvdv1.PipelineOp{getOp(1, "k"), putOp(2, "p")}}))
	long := putOp(3, "k")
	long.GetPut().Value = make([]byte, kv.TxnBytesMax+2048)
	require.NoError(t, stream.Send(&kvdv1.PipelineRequest{Ops: []*kvdv1.PipelineOp{long}}))
	got, _, err := receiveAll(stream)
	require.Equal(t, codes.InvalidArgument, status.Code(err), "%v", err)
	require.ErrorContains(t, err, "message")
	require.Len(t, got, 2)
}

// TestPipelineRefusesWhileTheLoopLags: writes are refused, with a hint, and reads from memory are not.
func TestPipelineRefusesWhileTheLoopLags(t *testing.T) {
	m := newTable()
	m.fill("k")
	m.lag = kv.LoopLagMax + 1
	_, conn := serve(t, Config{Backend: m})
	stream, err := kvdv1.NewKVClient(conn).Pipeline(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&kvdv1.PipelineRequest{Ops: []*kvdv1.PipelineOp{getOp(1, "k"), putOp(2, "p")}}))
	require.NoError(t, stream.CloseSend())
	got, _, err := receiveAll(stream)
	require.NoError(t, err)
	require.NotNil(t, got[1].GetGet())
	require.Equal(t, kvdv1.ErrorDetail_OVERLOADED, got[2].GetError().GetDetail().GetReason())
	require.Positive(t, got[2].GetError().GetDetail().GetRetryAfterMs())
}

// TestPipelineEndsWithItsClient: when the client goes away, nothing of its stream stays.
func TestPipelineEndsWithItsClient(t *testing.T) {
	m := newTable()
	m.hold = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	s := &scripted{ctx: ctx}
	sent := false
	s.next = func() (*kvdv1.PipelineRequest, error) {
		if !sent {
			sent = true
			return s.request(putOp(1, "k")), nil
		}
		cancel()
		return nil, ctx.Err()
	}
	s.sent = func(*kvdv1.PipelineResponse) error { return ctx.Err() }
	require.ErrorIs(t, (&service{backend: m}).Pipeline(s), context.Canceled)
}

// BenchmarkPipelineGet is a read from memory in a stream on loopback, 256 operations a message, 4 messages on their way.
func BenchmarkPipelineGet(b *testing.B) {
	m := newTable()
	m.fill("k")
	_, conn := serve(b, Config{Backend: m})
	stream, err := kvdv1.NewKVClient(conn).Pipeline(b.Context())
	require.NoError(b, err)
	const batch = 256
	r := &kvdv1.PipelineRequest{}
	for id := range uint64(batch) {
		r.Ops = append(r.Ops, getOp(id, "k"))
	}
	places := make(chan struct{}, 4*batch)
	received := make(chan error, 1)
	go func() {
		for {
			resp, err := stream.Recv()
			if err != nil {
				received <- err
				return
			}
			for range resp.Results {
				<-places
			}
		}
	}()
	b.ReportAllocs()
	sent := 0
	for b.Loop() { // One operation.
		places <- struct{}{}
		if sent++; sent%batch == 0 {
			if err := stream.Send(r); err != nil {
				b.Fatal(err)
			}
		}
	}
	if rest := sent % batch; rest > 0 {
		require.NoError(b, stream.Send(&kvdv1.PipelineRequest{Ops: r.Ops[:rest]}))
	}
	require.NoError(b, stream.CloseSend())
	require.ErrorIs(b, <-received, io.EOF)
}
