package server

import (
	"errors"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
)

// opsBytesMax bounds a message of operations; what frames them comes on top of the largest.
const opsBytesMax = kv.TxnBytesMax + 1024

// The numbers of the fields of PipelineRequest and PipelineOp that are looked at here.
const (
	opsField       = 1
	opIDField      = 1
	opTimeoutField = 2
	opGetField     = 3
)

// opsMessage is a PipelineRequest as it comes: its operations are decoded one by one, and one that is answered from memory
// into memory that the next one uses again.
type opsMessage struct {
	buffer *[]byte
	left   []byte
	// size is that of the whole, in bytes, and count how many operations it has.
	size, count int
}

var errWireType = errors.New("wrong wire type of field ops")

// UnmarshalVT copies the operations, and makes sure that they are told apart. Of a message that is too large only the size is
// taken.
func (m *opsMessage) UnmarshalVT(b []byte) error {
	if m.size = len(b); m.size > opsBytesMax {
		return nil
	}
	for rest := b; len(rest) > 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return protowire.ParseError(n)
		}
		size := protowire.ConsumeFieldValue(number, kind, rest[n:])
		if size < 0 {
			return protowire.ParseError(size)
		}
		if number == opsField {
			if kind != protowire.BytesType {
				return errWireType
			}
			m.count++
		}
		rest = rest[n+size:]
	}
	if len(b) > 0 { // For nothing the pool gives the largest that it has, and clears it.
		m.buffer = wire.Buffers.Get(len(b))
		m.left = append((*m.buffer)[:0], b...)
	}
	return nil
}

// next gives the next of count operations.
func (m *opsMessage) next() []byte {
	for {
		number, kind, n := protowire.ConsumeTag(m.left)
		size := protowire.ConsumeFieldValue(number, kind, m.left[n:])
		value := m.left[n : n+size]
		m.left = m.left[n+size:]
		if number == opsField {
			op, _ := protowire.ConsumeBytes(value)
			return op
		}
	}
}

// free gives its memory back.
func (m *opsMessage) free() {
	if m.buffer != nil {
		wire.Buffers.Put(m.buffer)
	}
	*m = opsMessage{}
}

// Reset makes it empty.
func (m *opsMessage) Reset() { m.free() }

// SizeVT is what is left of it.
func (m *opsMessage) SizeVT() int { return len(m.left) }

// MarshalToSizedBufferVT copies what is left of it.
func (m *opsMessage) MarshalToSizedBufferVT(b []byte) (int, error) { return copy(b, m.left), nil }

// ProtoReflect says what it is, for the codec to count its parts.
func (m *opsMessage) ProtoReflect() protoreflect.Message {
	return (*kvdv1.PipelineRequest)(nil).ProtoReflect()
}

// isGet reports whether an operation is a Get and nothing else.
func isGet(b []byte) (get bool) {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		size := protowire.ConsumeFieldValue(number, kind, b[n:])
		switch {
		case size < 0:
			return false
		case number == opGetField:
			get = true
		case number != opIDField && number != opTimeoutField:
			return false
		}
		b = b[n+size:]
	}
	return get
}

// readOp is what a Get of a pipeline is decoded into.
type readOp struct {
	getRequest
	// encoded is part of the message.
	encoded []byte
	op      kvdv1.PipelineOp
	get     kvdv1.PipelineOp_Get
}

// decode decodes an operation that is a Get into what is empty.
func (r *readOp) decode(b []byte) error {
	r.encoded = b
	r.request.Header, r.get.Get, r.op.Op = &r.header, &r.request, &r.get
	return r.op.UnmarshalVT(b)
}

// own is the operation in memory of its own.
func (r *readOp) own() (*kvdv1.PipelineOp, error) {
	op := &kvdv1.PipelineOp{}
	return op, op.UnmarshalVT(r.encoded)
}

// reset makes it empty. The key's memory stays, unless no key needs as much.
func (r *readOp) reset() {
	if r.getRequest.Reset(); cap(r.request.Key) > kv.KeyBytesMax {
		r.request.Key = nil
	}
	r.op.Reset()
	r.encoded = nil
}

// readResult is the result of a Get of a pipeline, until it is encoded.
type readResult struct {
	answer getAnswer
	result kvdv1.PipelineResult
	body   kvdv1.PipelineResult_Get
}

// reset makes it one of the operation with that number, with an empty answer.
func (r *readResult) reset(id uint64) {
	r.answer = getAnswer{}
	r.body.Get = &r.answer.response
	r.result.Result, r.result.Id = &r.body, id
}

// readsMax is how many reads of a stream are looked up together.
const readsMax = 32

// reads are those of a message that memory may answer and that have not begun.
type reads struct {
	ops   [readsMax]readOp
	looks [readsMax]node.Read
	count int
}

var readsPool = sync.Pool{New: func() any { return &reads{} }}

func newReads() *reads { return readsPool.Get().(*reads) }

// add decodes an operation that is a Get; added tells that it is one of them now.
func (r *reads) add(b []byte) (added bool, err error) {
	op := &r.ops[r.count]
	if err := op.decode(b); err != nil || !mayTry(&op.request) {
		op.reset()
		return false, err
	}
	r.count++
	return true, nil
}

// reset makes it empty: it keeps neither a value nor a part of the message.
func (r *reads) reset() {
	for i := range r.count {
		r.ops[i].reset()
	}
	clear(r.looks[:r.count])
	r.count = 0
}

// free gives it back for another message: a stream that is idle has none.
func (r *reads) free() {
	r.reset()
	readsPool.Put(r)
}
