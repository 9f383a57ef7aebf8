package client_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

// soon is between two ticks.
const soon = 130 * time.Millisecond

// hangs answers nothing before its context ends.
func hangs(ctx context.Context, _ int, _ *kvdv1.PutRequest) (*kvdv1.PutResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestPipelinedTime: an operation ends when its context does or, if that has no deadline, after kv.RequestTimeout: at once where
// somebody waits, and within a tick where not. What had not left was not done.
func TestPipelinedTime(t *testing.T) {
	for name, x := range map[string]struct {
		end     func(context.Context) (context.Context, context.CancelFunc)
		after   time.Duration
		err     error
		waiting bool // Of the caller.
		hang    bool // There is no connection, and no word that there will be none.
		outcome error
	}{
		"a deadline, waiting":        {withTimeout(soon), soon, context.DeadlineExceeded, true, false, client.ErrUnknown},
		"a deadline":                 {withTimeout(soon), soon, context.DeadlineExceeded, false, false, client.ErrUnknown},
		"called off, waiting":        {calledOff(soon), soon, context.Canceled, true, false, client.ErrUnknown},
		"called off":                 {calledOff(soon), soon, context.Canceled, false, false, client.ErrUnknown},
		"no deadline":                {context.WithCancel, kv.RequestTimeout, context.DeadlineExceeded, false, false, client.ErrUnknown},
		"no deadline, waiting":       {context.WithCancel, kv.RequestTimeout, context.DeadlineExceeded, true, false, client.ErrUnknown},
		"no connection, called off":  {calledOff(soon), soon, context.Canceled, false, true, client.ErrNotDone},
		"no connection, a deadline":  {withTimeout(soon), soon, context.DeadlineExceeded, true, true, client.ErrNotDone},
		"no connection, no deadline": {context.WithCancel, kv.RequestTimeout, context.DeadlineExceeded, false, true, client.ErrNotDone},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newNetwork(t)
				w.node("n1:1").put = hangs
				defer w.stop()
				c := w.connect(func(c *client.Config) {
					if x.hang {
						c.DialOptions = []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
							<-ctx.Done()
							return nil, ctx.Err()
						})}
					}
				}, "n1:1")
				p := c.Pipeline()
				ctx, cancel := x.end(t.Context())
				defer cancel()
				began, result, late := time.Now(), make(chan error, 1), tick
				if x.waiting {
					_, err := p.Put(ctx, b("k"), b("v"))
					result <- err
					if x.after != kv.RequestTimeout {
						late = 0
					}
				} else {
					p.GoPut(ctx, b("k"), b("v"), func(_ client.PutResult, err error) { result <- err })
				}
				err := <-result
				if !x.hang || x.after != kv.RequestTimeout { // There the last attempt would come after the end.
					require.GreaterOrEqual(t, time.Since(began), x.after)
				}
				require.LessOrEqual(t, time.Since(began), x.after+late)
				require.ErrorIs(t, err, x.err)
				require.ErrorIs(t, err, x.outcome)
				require.NotEqual(t, x.outcome == client.ErrUnknown, isNotDone(err))
				require.NoError(t, c.Close())
			})
		})
	}
}

func isNotDone(err error) bool { return errors.Is(err, client.ErrNotDone) }

func withTimeout(d time.Duration) func(context.Context) (context.Context, context.CancelFunc) {
	return func(ctx context.Context) (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, d) }
}

// calledOff makes contexts without a deadline that end nevertheless.
func calledOff(d time.Duration) func(context.Context) (context.Context, context.CancelFunc) {
	return func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(d, cancel)
		return ctx, cancel
	}
}

// TestSilentStream: a node that answers nothing at all is given up with what was flying to it; one that gives a sign of life
// is not.
func TestSilentStream(t *testing.T) {
	for name, mute := range map[string]bool{"mute": true, "alive": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newNetwork(t)
				n := w.node("n1:1")
				defer w.stop()
				n.put, n.mute = hangs, mute
				c := w.connect(nil, "n1:1")
				began := time.Now()
				_, err := c.Pipeline().Put(t.Context(), b("k"), b("v"))
				require.ErrorIs(t, err, client.ErrUnknown)
				if mute {
					require.ErrorContains(t, err, "no answer in time")
					require.LessOrEqual(t, time.Since(began), 2*time.Second+2*tick, "a second of silence, and one to ask")
				} else {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.GreaterOrEqual(t, n.asked(), 5)
				}
				require.NoError(t, c.Close())
			})
		})
	}
}

// raw is a message as it travels.
type raw []byte

func (raw) Reset()                                         {}
func (r raw) SizeVT() int                                  { return len(r) }
func (r raw) MarshalToSizedBufferVT(b []byte) (int, error) { return copy(b, r), nil }
func (raw) UnmarshalVT([]byte) error                       { return errors.New("it is only sent") }

// TestGarbledAnswers: a stream whose answers cannot be decoded is broken: what was flying on it is unknown, and reads come again.
func TestGarbledAnswers(t *testing.T) {
	for name, answer := range map[string]raw{
		"a message": {0x0a, 9},
		"an id":     {0x0a, 2, 0x08, 0x80},
		// Of both operations: these are the first ids of the first two slots.
		"an answer":    {0x0a, 7, 0x08, 0x80, 0x08, 0x1a, 2, 0x0a, 9, 0x0a, 7, 0x08, 0x81, 0x08, 0x1a, 2, 0x0a, 9},
		"nothing":      {0x0a, 3, 0x08, 0x80, 0x08, 0x0a, 3, 0x08, 0x81, 0x08},
		"another kind": {0x0a, 5, 0x08, 0x80, 0x08, 0x2a, 0, 0x0a, 5, 0x08, 0x81, 0x08, 0x2a, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newNetwork(t, grpc.ForceServerCodecV2(wire.Codec()))
				n := w.node("n1:1")
				defer w.stop()
				n.pipeline = func(stream kvdv1.KV_PipelineServer) error {
					for came := 0; came < 2; {
						m, err := stream.Recv()
						if err != nil {
							return err
						}
						came += len(m.Ops)
					}
					n.mu.Lock()
					n.pipeline = nil
					n.mu.Unlock()
					if err := stream.SendMsg(answer); err != nil {
						return err
					}
					<-stream.Context().Done()
					return stream.Context().Err()
				}
				c := w.connect(nil, "n1:1")
				p := c.Pipeline()
				began := time.Now()
				read, written := make(chan error, 1), make(chan error, 1)
				p.GoGet(t.Context(), b("k"), func(_ client.Item, _ bool, err error) { read <- err })
				p.GoPut(t.Context(), b("k"), b("v"), func(_ client.PutResult, err error) { written <- err })
				require.ErrorIs(t, <-written, client.ErrUnknown)
				require.NoError(t, <-read)
				require.Less(t, time.Since(began), time.Second)
				require.Empty(t, n.came())
				require.NoError(t, c.Close())
			})
		})
	}
}

// heldCodec has a message wait before it is encoded.
type heldCodec struct {
	encoding.CodecV2
	hold chan struct{}
}

func (c heldCodec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(interface{ GetOps() []*kvdv1.PipelineOp }); ok && len(m.GetOps()) > 0 {
		<-c.hold
	}
	return c.CodecV2.Marshal(v)
}

// TestCallerKeepsNothingThatIsSent: a caller that has given up may use the memory of key and value again: it does not hear of the end
// before they are encoded.
func TestCallerKeepsNothingThatIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		n := w.node("n1:1")
		n.put = hangs
		defer w.stop()
		held := heldCodec{wire.Codec(), make(chan struct{})}
		c := w.connect(func(c *client.Config) {
			c.DialOptions = append(c.DialOptions, grpc.WithDefaultCallOptions(grpc.ForceCodecV2(held)))
		}, "n1:1")
		ctx, cancel := context.WithCancel(t.Context())
		key, value := b("key"), b("value")
		result := make(chan error, 1)
		go func() {
			_, err := c.Pipeline().Put(ctx, key, value)
			copy(key, "abc")
			copy(value, "abcde")
			result <- err
		}()
		time.Sleep(soon)
		cancel()
		time.Sleep(soon)
		close(held.hold)
		require.ErrorIs(t, <-result, client.ErrUnknown)
		synctest.Wait()
		came := n.came()
		require.Len(t, came, 1)
		require.Equal(t, "key", string(came[0].Key))
		require.Equal(t, "value", string(came[0].Value))
		require.NoError(t, c.Close())
	})
}
