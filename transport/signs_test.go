package transport

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// incoming is the stream of a neighbour.
type incoming struct {
	grpc.ServerStream
	ctx   context.Context
	says  chan *kvdv1.Envelope
	heard chan time.Time
}

func (s *incoming) Context() context.Context { return s.ctx }

func (s *incoming) Send(*kvdv1.RaftHeard) error {
	s.heard <- time.Now()
	return nil
}

func (s *incoming) Recv() (*kvdv1.Envelope, error) {
	select {
	case e := <-s.says:
		return e, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

// TestSignsOfLife: who goes on speaking hears now and then that it is heard, however much it says; who falls silent is given up.
func TestSignsOfLife(t *testing.T) {
	for name, pause := range map[string]time.Duration{"pings": pingInterval, "messages": 5 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const spoken = 10 * time.Second
				d := &directory{addresses: map[kv.NodeID]string{1: "a", 2: "b"}}
				node := New(Config{
					Cluster: 7, Node: 1, Life: 1, Address: d.find, Logger: slog.New(slog.DiscardHandler),
					Handler: &end{directory: d, news: make(chan struct{}, 1)},
				})
				defer node.Close()
				ctx, cancel := context.WithCancel(t.Context())
				s := &incoming{ctx: ctx, says: make(chan *kvdv1.Envelope), heard: make(chan time.Time, 1000)}
				ended := make(chan error, 1)
				go func() {
					ended <- node.raft(s)
					cancel() // As gRPC does.
				}()
				began := time.Now()
				for time.Since(began) < spoken {
					select {
					case s.says <- &kvdv1.Envelope{ClusterId: 7, FromNode: 2, ToNode: 1, Version: Version}:
					case err := <-ended:
						require.Fail(t, "given up while it speaks", "after %v: %v", time.Since(began), err)
						return
					}
					time.Sleep(pause)
				}
				silent := time.Now()
				select {
				case err := <-ended:
					require.Equal(t, codes.DeadlineExceeded, status.Code(err))
				case <-time.After(2 * silenceMax):
					cancel()
					require.Error(t, <-ended)
					require.Fail(t, "not given up though it is silent")
				}
				require.InDelta(t, silenceMax, time.Since(silent.Add(-pause)), float64(pause+lookInterval))
				close(s.heard)
				last, n := began, 0
				for at := range s.heard {
					require.LessOrEqual(t, at.Sub(last), pingInterval+lookInterval, "a sign of life each time that it says something")
					last, n = at, n+1
				}
				require.LessOrEqual(t, n, int(spoken/max(lookInterval, pause))+2)
				require.InDelta(t, 0, last.Sub(silent), float64(pingInterval+lookInterval), "up to the last that it said")
			})
		})
	}
}

// TestPings: a stream on which nothing is to be said says so each pingInterval, however often something was said before; what is queued
// leaves at once, once and in order; and the stream's end has the reason that the reader was told.
func TestPings(t *testing.T) {
	for name, pause := range map[string]time.Duration{"silence": time.Hour, "messages": pingInterval / 7, "now and then": pingInterval * 5 / 4} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broken := errors.New("broken")
				ctx, cancel := context.WithCancelCause(t.Context())
				p := &peer{t: &Transport{}, wake: make(chan struct{}, 1)}
				var sent []uint64
				pings := 0
				breaks := false
				ended := make(chan error, 1)
				last := time.Now()
				go func() {
					ended <- p.send(ctx, func(messages []*kvdv1.RaftMessage) error {
						if breaks {
							return io.EOF
						}
						assert.LessOrEqual(t, time.Since(last), pingInterval)
						last = time.Now()
						if len(messages) == 0 {
							pings++
						}
						for _, m := range messages {
							sent = append(sent, m.GetIndex())
							assert.Equal(t, uint64(time.Now().UnixNano()), m.GetCommit(), "it waited")
						}
						return nil
					})
				}()
				began, n := time.Now(), uint64(0)
				for next := began.Add(pause); time.Since(began) < 20*pingInterval; {
					time.Sleep(min(time.Until(next), pingInterval))
					if !time.Now().Before(next) {
						n++
						p.put([]*kvdv1.RaftMessage{{Index: n, Commit: uint64(time.Now().UnixNano())}})
						next = time.Now().Add(pause)
					}
				}
				synctest.Wait()
				require.Len(t, sent, int(n))
				require.IsIncreasing(t, append(sent, n+1, n+2))
				require.GreaterOrEqual(t, pings, 5)
				require.LessOrEqual(t, pings, 20)

				breaks = true
				p.put([]*kvdv1.RaftMessage{{}})
				synctest.Wait()
				require.Empty(t, ended, "it does not know the reason yet")
				cancel(broken)
				require.ErrorIs(t, <-ended, broken)
			})
		})
	}
}
