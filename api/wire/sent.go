package wire

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc/stats"
)

// sentKey is the context's key for the mark that a request has left.
type sentKey struct{}

// MarkSent gives a context for a call on a connection with SentHandler, and a mark that tells whether the request has
// left this process: one that has not was surely not done.
func MarkSent(ctx context.Context) (context.Context, *atomic.Bool) {
	mark := &atomic.Bool{}
	return context.WithValue(ctx, sentKey{}, mark), mark
}

// SentHandler marks the requests that leave over a connection; it goes into grpc.WithStatsHandler.
func SentHandler() stats.Handler { return sentHandler{} }

type sentHandler struct{}

func (sentHandler) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (sentHandler) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutHeader); ok {
		if mark, ok := ctx.Value(sentKey{}).(*atomic.Bool); ok {
			mark.Store(true)
		}
	}
}
func (sentHandler) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (sentHandler) HandleConn(context.Context, stats.ConnStats)                       {}
