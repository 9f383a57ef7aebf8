package server

import (
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
)

// counted is a backend that counts the reads that are begun.
type counted struct {
	*table
	reads atomic.Int64
}

func (c *counted) TryGet(at time.Duration, key []byte) (kv.Record, bool, kv.Header, bool) {
	c.reads.Add(1)
	return c.table.TryGet(at, key)
}

func (c *counted) TryGets(at time.Duration, reads []node.Read) { tryEach(c, at, reads) }

// clocked is a backend that counts looks at its clock, and notes by which moments reads were judged.
type clocked struct {
	*table
	began time.Time
	looks int
	by    map[time.Duration]int
}

func newClocked() *clocked {
	c := &clocked{table: newTable(), began: time.Now(), by: map[time.Duration]int{}}
	c.fill("k")
	return c
}

func (c *clocked) Moment() time.Duration {
	c.looks++
	return time.Since(c.began)
}

func (c *clocked) TryGet(at time.Duration, key []byte) (kv.Record, bool, kv.Header, bool) {
	c.by[at]++
	return c.table.TryGet(at, key)
}

func (c *clocked) TryGets(at time.Duration, reads []node.Read) { tryEach(c, at, reads) }

// TestPipelineLooksAtTheClock (L3): once for the reads of a message, after it has come, and again when one had to wait for a place;
// and not for writes.
func TestPipelineLooksAtTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newClocked()
		counts := []uint64{64, 2 * kv.PipelineInFlight}
		s := &scripted{ctx: t.Context(), next: func() (*kvdv1.PipelineRequest, error) {
			time.Sleep(3 * time.Second)
			if len(counts) == 0 {
				return nil, io.EOF
			}
			r := &kvdv1.PipelineRequest{}
			for id := range counts[0] {
				r.Ops = append(r.Ops, getOp(id, "k"))
			}
			counts = counts[1:]
			return r, nil
		}, sent: func(*kvdv1.PipelineResponse) error {
			if time.Since(m.began) >= 6*time.Second {
				time.Sleep(time.Hour)
			}
			return nil
		}}
		require.NoError(t, (&service{backend: m}).Pipeline(s))
		late := 0
		for at, n := range m.by {
			if at >= time.Hour {
				late += n
			}
		}
		require.Equal(t, 64, m.by[3*time.Second])
		require.Positive(t, m.by[6*time.Second])
		require.GreaterOrEqual(t, late, kv.PipelineInFlight)
		require.Equal(t, 2*kv.PipelineInFlight, m.by[6*time.Second]+late)
		require.Less(t, m.looks, 64)

		before := m.looks
		b, err := (&kvdv1.PipelineRequest{Ops: []*kvdv1.PipelineOp{putOp(1, "k")}}).MarshalVT()
		require.NoError(t, err)
		s = &scripted{ctx: t.Context(), raw: [][]byte{b}, sent: func(*kvdv1.PipelineResponse) error { return nil }}
		require.NoError(t, (&service{backend: m}).Pipeline(s))
		require.Equal(t, before, m.looks)
	})
}

// TestReadsLookAtTheClock (L3): once for each Get, and for each lot of a BatchGet, after the request has come; not for what any
// replica may answer.
func TestReadsLookAtTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newClocked()
		s := &service{backend: m}
		time.Sleep(time.Second)
		keys := make([][]byte, batchWorkers+1)
		for i := range keys {
			keys[i] = []byte("k")
		}
		_, err := s.BatchGet(t.Context(), &kvdv1.BatchGetRequest{Keys: keys})
		require.NoError(t, err)
		require.Equal(t, map[time.Duration]int{time.Second: batchWorkers + 1}, m.by)
		require.Equal(t, 2, m.looks)
		for i := range 3 {
			time.Sleep(time.Second)
			require.True(t, s.fillGet(&getAnswer{}, &kvdv1.GetRequest{Key: keys[0]}))
			require.Equal(t, 1, m.by[time.Duration(2+i)*time.Second])
		}
		before := m.looks
		require.False(t, s.fillGet(&getAnswer{}, &kvdv1.GetRequest{Key: keys[0], Level: kvdv1.Level_EVENTUAL}))
		require.Equal(t, before, m.looks)
	})
}

// TestPipelineOfAllKinds: reads from memory, reads that are not there, eventual ones and writes in one message have a result each,
// and their own.
func TestPipelineOfAllKinds(t *testing.T) {
	m := newTable("k3")
	r := &kvdv1.PipelineRequest{}
	want := map[uint64]string{}
	for id := range uint64(5*readsMax + 3) {
		key := fmt.Sprintf("k%d", id)
		op := getOp(id, key)
		switch id % 7 {
		case 0:
			op = putOp(id, key)
			want[id] = "put"
		case 1:
			op.GetGet().Level = kvdv1.Level_EVENTUAL
			fallthrough
		case 2, 3, 4:
			m.fill(key)
			want[id] = "value of " + key
		case 5:
			want[id] = "absent"
		default:
			op.GetGet().Key = nil
			want[id] = "refused"
		}
		r.Ops = append(r.Ops, op)
	}
	b, err := r.MarshalVT()
	require.NoError(t, err)
	got := map[uint64]string{}
	s := &scripted{ctx: t.Context(), raw: [][]byte{b, b}, sent: func(r *kvdv1.PipelineResponse) error {
		for _, x := range r.Results {
			switch {
			case x.GetError() != nil:
				got[x.Id] = "refused"
			case x.GetPut() != nil:
				got[x.Id] = "put"
			case !x.GetGet().GetFound():
				got[x.Id] = "absent"
			default:
				got[x.Id] = string(x.GetGet().GetValue())
			}
		}
		return nil
	}}
	require.NoError(t, (&service{backend: m}).Pipeline(s))
	require.Equal(t, want, got)
}

// TestReadsKeepNothing: of a message nothing stays in memory that the next one may use: no value, no part of the message, no key that
// is longer than keys are, and nothing of an operation that was not added.
func TestReadsKeepNothing(t *testing.T) {
	long := getOp(1, string(make([]byte, kv.KeyBytesMax+1)))
	long.GetGet().Header = &kvdv1.RequestHeader{Shard: 9, Version: 7}
	eventual := getOp(2, string(make([]byte, kv.KeyBytesMax+1)))
	eventual.GetGet().Level = kvdv1.Level_EVENTUAL
	r := &reads{}
	for _, op := range []*kvdv1.PipelineOp{long, getOp(3, "k"), eventual} {
		b, err := op.MarshalVT()
		require.NoError(t, err)
		added, err := r.add(append(b, 0xfa, 0x01, 1, 7)) // And a field of a later version.
		require.NoError(t, err)
		require.Equal(t, op != eventual, added)
	}
	r.looks[0].Record.Value = []byte("value")
	r.reset()
	for i := range r.ops {
		op := &r.ops[i]
		require.LessOrEqual(t, cap(op.request.Key), kv.KeyBytesMax)
		require.Empty(t, op.request.Key)
		require.Nil(t, op.encoded)
		require.Empty(t, op.op.ProtoReflect().GetUnknown())
		require.Zero(t, op.header.Shard)
		require.Zero(t, r.looks[i])
	}
}

// TestPipelineBoundsAMessage: the bounds on operations and on the bytes of answers hold within one message, too.
func TestPipelineBoundsAMessage(t *testing.T) {
	for name, c := range map[string]struct{ value, most int }{
		"operations": {1, kv.PipelineInFlight},
		"bytes":      {kv.ValueBytesMax, unsentBytesMax/kv.ValueBytesMax + readsMax},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const count = 3 * kv.PipelineInFlight
				m := &counted{table: newTable()}
				m.keys["k"] = kv.Record{Value: make([]byte, c.value), Revision: 1}
				r := &kvdv1.PipelineRequest{}
				for id := range uint64(count) {
					r.Ops = append(r.Ops, getOp(id, "k"))
				}
				b, err := r.MarshalVT()
				require.NoError(t, err)
				answers, take := 0, make(chan struct{})
				s := &scripted{ctx: t.Context(), raw: [][]byte{b}, sent: func(r *kvdv1.PipelineResponse) error {
					<-take
					answers += len(r.Results)
					return nil
				}}
				ended := make(chan error, 1)
				x := &service{backend: m}
				go func() { ended <- x.Pipeline(s) }()
				synctest.Wait() // Nothing can go on until an answer is taken.
				require.LessOrEqual(t, int(m.reads.Load()), c.most)
				x.pipelines.Range(func(p, _ any) bool {
					for _, look := range p.(*pipeline).reads.looks {
						require.Zero(t, len(look.Record.Value), "what waits for a place keeps no value in memory")
					}
					return true
				})
				close(take)
				require.NoError(t, <-ended)
				require.Equal(t, count, answers)
				require.LessOrEqual(t, int(m.reads.Load()), count*3/2, "few are looked up again")
			})
		})
	}
}

// TestPipelineRefusesWhatItCannotDecode: the stream ends, and what came before is answered.
func TestPipelineRefusesWhatItCannotDecode(t *testing.T) {
	good, err := getOp(1, "k").MarshalVT()
	require.NoError(t, err)
	for name, message := range map[string][]byte{
		"an operation":      append(frameOp(good), frameOp([]byte{0x1a, 5, 1})...),
		"a get":             append(frameOp(good), frameOp([]byte{0x1a, 2, 0x12, 9})...),
		"an operation's id": append(frameOp(good), frameOp([]byte{0x0a, 0})...),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newTable()
				m.fill("k")
				answers := 0
				s := &scripted{ctx: t.Context(), raw: [][]byte{message}, sent: func(r *kvdv1.PipelineResponse) error {
					answers += len(r.Results)
					return nil
				}}
				require.Equal(t, codes.Internal, status.Code((&service{backend: m}).Pipeline(s)))
				require.Equal(t, 1, answers)
			})
		})
	}
	for name, message := range map[string][]byte{"a frame": {0x0a, 5, 1}, "a wire type": {0x08, 1}, "a tag": {0xff}} {
		require.Error(t, new(opsMessage).UnmarshalVT(message), name)
	}
}

// TestPipelineSkipsWhatItDoesNotKnow: a field of a later version beside the operations, and in one.
func TestPipelineSkipsWhatItDoesNotKnow(t *testing.T) {
	m := newTable()
	m.fill("k")
	op, err := getOp(1, "k").MarshalVT()
	require.NoError(t, err)
	later := []byte{0xfa, 0x01, 1, 7} // Field 31, one byte.
	message := append(append(append([]byte{}, later...), frameOp(append(op, later...))...), later...)
	var got []*kvdv1.PipelineResult
	s := &scripted{ctx: t.Context(), raw: [][]byte{message}, sent: func(r *kvdv1.PipelineResponse) error {
		got = append(got, r.Results...)
		return nil
	}}
	require.NoError(t, (&service{backend: m}).Pipeline(s))
	require.Len(t, got, 1)
	require.Equal(t, "value of k", string(got[0].GetGet().GetValue()))
}

// TestPipelineDeadlinesOfMany: each write has its own deadline, whatever the order in which they came, and no second result
// when the backend answers later.
func TestPipelineDeadlinesOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newTable()
		m.held = make(chan struct{})
		began := time.Now()
		ms := []uint32{5000, 1000, 3000, 0, 1000, 9000}
		next := 0
		idle := make(chan struct{})
		s := &scripted{ctx: t.Context()}
		s.next = func() (*kvdv1.PipelineRequest, error) {
			if next == len(ms) {
				<-idle
				return nil, io.EOF
			}
			op := putOp(uint64(next), "k")
			op.TimeoutMs = ms[next]
			next++
			return s.request(op), nil
		}
		ended := map[uint64]time.Duration{}
		s.sent = func(r *kvdv1.PipelineResponse) error {
			for _, x := range r.Results {
				require.EqualValues(t, codes.DeadlineExceeded, x.GetError().GetCode())
				require.NotContains(t, ended, x.Id)
				ended[x.Id] = time.Since(began)
			}
			if len(ended) == len(ms) {
				close(m.held) // Now the backend answers, too late.
				synctest.Wait()
				close(idle)
			}
			return nil
		}
		require.NoError(t, (&service{backend: m}).Pipeline(s))
		require.Equal(t, map[uint64]time.Duration{
			0: 5 * time.Second, 1: time.Second, 2: 3 * time.Second, 3: kv.RequestTimeout, 4: time.Second, 5: 9 * time.Second,
		}, ended)
	})
}

// TestPipelinedGetsShareNothing: a read sees nothing of the one before it, whose memory it is decoded and answered in.
func TestPipelinedGetsShareNothing(t *testing.T) {
	m := newMemory()
	m.keys["full"] = kv.Record{Value: []byte("value"), Revision: 7, ExpireAt: 9}
	m.keys["empty"] = kv.Record{}
	old := getOp(5, "full")
	old.GetGet().Header = &kvdv1.RequestHeader{Shard: 9, Version: 7}
	r := &kvdv1.PipelineRequest{Ops: []*kvdv1.PipelineOp{old, getOp(0, "empty"), getOp(6, "full")}}
	b, err := r.MarshalVT()
	require.NoError(t, err)
	got := map[uint64]*kvdv1.GetResponse{}
	s := &scripted{ctx: t.Context(), raw: [][]byte{b}, sent: func(r *kvdv1.PipelineResponse) error {
		for _, x := range r.Results {
			got[x.Id] = x.GetGet()
		}
		return nil
	}}
	require.NoError(t, (&service{backend: m}).Pipeline(s))
	require.Len(t, got[5].GetHeader().GetDescriptors(), 1)
	require.True(t, got[0].GetFound())
	require.Empty(t, got[0].GetValue())
	require.Zero(t, got[0].GetRevision()+uint64(got[0].GetExpireAtMs()))
	require.Empty(t, got[0].GetHeader().GetDescriptors())
	require.Equal(t, "value", string(got[6].GetValue()))
	require.Empty(t, got[6].GetHeader().GetDescriptors())
}
