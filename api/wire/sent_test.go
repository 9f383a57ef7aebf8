package wire_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
)

// silent never answers.
type silent struct {
	kvdv1.UnimplementedKVServer
	came chan string
}

func (s *silent) Put(ctx context.Context, r *kvdv1.PutRequest) (*kvdv1.PutResponse, error) {
	s.came <- string(r.GetKey())
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s *silent) Scan(r *kvdv1.ScanRequest, stream kvdv1.KV_ScanServer) error {
	s.came <- string(r.GetStart())
	<-stream.Context().Done()
	return stream.Context().Err()
}

// place is a server, and connections to it, without sockets.
type place struct {
	t      *testing.T
	server *grpc.Server
	lis    *bufconn.Listener
	silent *silent
}

func newPlace(t *testing.T, options ...grpc.ServerOption) *place {
	p := &place{t, grpc.NewServer(options...), bufconn.Listen(1 << 16), &silent{came: make(chan string, 10)}}
	kvdv1.RegisterKVServer(p.server, p.silent)
	go func() { _ = p.server.Serve(p.lis) }()
	return p
}

func (p *place) connect(options ...grpc.DialOption) *grpc.ClientConn {
	conn, err := grpc.NewClient("passthrough:///place", append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.lis.DialContext(ctx) }),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec())),
	}, options...)...)
	require.NoError(p.t, err)
	return conn
}

// put makes a call, and tells whether it was sent.
func put(ctx context.Context, conn *grpc.ClientConn) (sent bool, err error) {
	m := &wire.MarkedConn{Conn: conn}
	_, err = kvdv1.NewKVClient(m).Put(ctx, &kvdv1.PutRequest{Key: []byte("k")})
	return m.Sent(), err
}

// TestSentWhatCame: what comes to the server was sent, with any codec, as one request or as a stream.
func TestSentWhatCame(t *testing.T) {
	for name, codec := range map[string]encoding.CodecV2{"of kvd": wire.Codec(), "of gRPC": encoding.GetCodecV2(proto.Name)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlace(t)
				defer p.server.Stop()
				conn := p.connect(grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec)))
				defer conn.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				sent, err := put(ctx, conn)
				require.Equal(t, codes.DeadlineExceeded, status.Code(err))
				require.True(t, sent)
				require.Equal(t, "k", <-p.silent.came)

				ctx, cancel = context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				m := &wire.MarkedConn{Conn: conn}
				scan, err := kvdv1.NewKVClient(m).Scan(ctx, &kvdv1.ScanRequest{Start: []byte("s")})
				require.NoError(t, err)
				_, err = scan.Recv()
				require.Error(t, err)
				require.True(t, m.Sent())
				require.Equal(t, "s", <-p.silent.came)
			})
		})
	}
}

// TestNotSent: of what did not come to have a stream on a connection nothing has left.
func TestNotSent(t *testing.T) {
	refuse := func(context.Context, string) (net.Conn, error) { return nil, errors.New("nobody is there") }
	hang := func(ctx context.Context, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	ended, end := context.WithCancel(t.Context())
	end()
	for name, x := range map[string]struct {
		ctx     context.Context
		options []grpc.DialOption
		before  func(p *place, conn *grpc.ClientConn)
		code    codes.Code
	}{
		"nobody there":       {options: []grpc.DialOption{grpc.WithContextDialer(refuse)}, code: codes.Unavailable},
		"never connected":    {options: []grpc.DialOption{grpc.WithContextDialer(hang)}, code: codes.DeadlineExceeded},
		"ended before":       {ctx: ended, code: codes.Canceled},
		"the server is gone": {before: func(p *place, _ *grpc.ClientConn) { p.server.Stop() }, code: codes.Unavailable},
		"closed":             {before: func(_ *place, conn *grpc.ClientConn) { _ = conn.Close() }, code: codes.Canceled},
		"no room for a stream": {before: func(p *place, conn *grpc.ClientConn) {
			ctx, cancel := context.WithCancel(context.Background())
			go func() { _, _ = put(ctx, conn) }()
			<-p.silent.came
			context.AfterFunc(p.t.Context(), cancel)
		}, code: codes.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlace(t, grpc.MaxConcurrentStreams(1))
				defer p.server.Stop()
				conn := p.connect(x.options...)
				defer conn.Close()
				if x.before != nil {
					x.before(p, conn)
					synctest.Wait()
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if x.ctx != nil {
					ctx = x.ctx
				}
				sent, err := put(ctx, conn)
				require.Equal(t, x.code, status.Code(err), err)
				require.False(t, sent)
				require.Empty(t, p.silent.came)
				m := &wire.MarkedConn{Conn: conn}
				if scan, err := kvdv1.NewKVClient(m).Scan(ctx, &kvdv1.ScanRequest{}); err == nil {
					_, err = scan.Recv()
					require.Error(t, err)
				}
				require.False(t, m.Sent())
			})
		})
	}
}
