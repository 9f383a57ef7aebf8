package wire

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Request is what the generated code of kvd can encode.
type Request interface {
	proto.Message
	message
}

// Marked is a request that knows whether it has left. gRPC encodes one only when it has a stream for it on a connection that
// stands (newClientStream comes before SendMsg, and what is tried again are the encoded bytes), so one that was never encoded
// was surely never sent, and not done. A stats.Handler tells the same, and costs a call seven allocations.
type Marked struct {
	Request
	encoded atomic.Bool
}

// Sent is false when the request surely has not left this process.
func (m *Marked) Sent() bool { return m.encoded.Load() }

// Unmark takes the mark off, before the request is sent again.
func (m *Marked) Unmark() { m.encoded.Store(false) }

// MarshalToSizedBufferVT encodes the request, for the codec of this package.
func (m *Marked) MarshalToSizedBufferVT(b []byte) (int, error) {
	m.encoded.Store(true)
	return m.Request.MarshalToSizedBufferVT(b)
}

// ProtoReflect is how any other codec begins.
func (m *Marked) ProtoReflect() protoreflect.Message {
	m.encoded.Store(true)
	return m.Request.ProtoReflect()
}

// MarkedConn is a connection for one call of a generated client.
type MarkedConn struct {
	Marked
	Conn grpc.ClientConnInterface
}

// Invoke makes a call of one request.
func (c *MarkedConn) Invoke(ctx context.Context, method string, request, reply any, options ...grpc.CallOption) error {
	return c.Conn.Invoke(ctx, method, c.mark(request), reply, options...)
}

// NewStream begins a call with any number of requests: it was sent when one was.
func (c *MarkedConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, options ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := c.Conn.NewStream(ctx, desc, method, options...)
	return markedStream{stream, c}, err
}

// mark has the mark set when a request is encoded.
func (c *MarkedConn) mark(request any) any {
	m, ok := request.(Request)
	if !ok {
		c.encoded.Store(true)
		return request
	}
	c.Request = m
	return &c.Marked
}

type markedStream struct {
	grpc.ClientStream
	c *MarkedConn
}

func (s markedStream) SendMsg(m any) error { return s.ClientStream.SendMsg(s.c.mark(m)) }
