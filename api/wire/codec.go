package wire

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// Codec encodes the messages of kvd with the generated vtproto code, and all others (health, reflection) with the
// standard codec of gRPC. On the wire both are the same, so peers need not use it. For clients it goes into
// grpc.ForceCodecV2, for servers into grpc.ForceServerCodecV2.
//
// A message may be used again as soon as it was sent, and a received one shares no memory with the transport.
func Codec() encoding.CodecV2 {
	return codec{standard: encoding.GetCodecV2(proto.Name)}
}

// message is what vtproto generates.
type message interface {
	Reset()
	SizeVT() int
	MarshalToSizedBufferVT(b []byte) (int, error)
	UnmarshalVT(b []byte) error
}

// Encoded is a message that is told when it was encoded, so that it can be used again: nothing refers to it any more.
type Encoded interface{ Encoded() }

type codec struct {
	standard encoding.CodecV2
}

// Name is that of the standard codec, because the bytes are the same.
func (codec) Name() string { return proto.Name }

// Marshal copies the message into a buffer that goes back to the pool when it was written. Nothing of the message
// is touched, so several goroutines may encode one message.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(message)
	if !ok {
		return c.standard.Marshal(v)
	}
	if e, ok := v.(Encoded); ok {
		defer e.Encoded()
	}
	size := m.SizeVT()
	if mem.IsBelowBufferPoolingThreshold(size) {
		b := make([]byte, size)
		if _, err := m.MarshalToSizedBufferVT(b); err != nil {
			return nil, fmt.Errorf("encode %T: %w", v, err)
		}
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	pool := Buffers
	b := pool.Get(size)
	if _, err := m.MarshalToSizedBufferVT((*b)[:size]); err != nil {
		pool.Put(b)
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return mem.BufferSlice{mem.NewBuffer(b, pool)}, nil
}

// Unmarshal replaces what v holds. The buffers go back to their pool afterwards: the generated code copies.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(message)
	if !ok {
		return c.standard.Unmarshal(data, v)
	}
	b := data.MaterializeToBuffer(Buffers)
	defer b.Free()
	m.Reset()
	if err := m.UnmarshalVT(b.ReadOnlyData()); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	return nil
}
