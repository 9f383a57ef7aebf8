package wire

// What a message takes in memory is not what it takes on the wire: an empty element of a list is two bytes there and
// some hundred here. So what a server receives is counted before it is decoded.

import (
	"fmt"
	"sync"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// partsFrom is the size of a message below which its parts are not counted.
const partsFrom = 16 << 10

// ServerCodec is Codec for what receives from anybody: a message with more parts than kv.MessagePartsMax, or between
// nodes kv.NodeMessagePartsMax, is refused before it is decoded.
func ServerCodec() encoding.CodecV2 { return serverCodec{Codec()} }

type serverCodec struct{ encoding.CodecV2 }

// Unmarshal counts and decodes.
func (c serverCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if ok && data.Len() > partsFrom {
		b := data.MaterializeToBuffer(Buffers)
		defer b.Free()
		data = mem.BufferSlice{b}
		if err := checkParts(m.ProtoReflect().Descriptor(), b.ReadOnlyData()); err != nil {
			return err
		}
	}
	return c.CodecV2.Unmarshal(data, v)
}

func checkParts(d protoreflect.MessageDescriptor, b []byte) error {
	most := kv.MessagePartsMax
	if file := d.ParentFile().Path(); file == nodeFile || file == logFile {
		most = kv.NodeMessagePartsMax
	}
	left := most
	if !countParts(shapeOf(d), b, &left, 0) {
		return &kv.InvalidError{Field: string(d.Name()), Bound: fmt.Sprintf("at most %d elements and nested messages", most)}
	}
	return nil
}

var nodeFile, logFile = kvdv1.File_kvd_v1_node_proto.Path(), kvdv1.File_kvd_v1_log_proto.Path()

// shape tells of the fields of a message that are counted: those that are messages, to look into, and lists, with nil.
type shape map[protowire.Number]protoreflect.MessageDescriptor

var shapes sync.Map // protoreflect.FullName to shape.

func shapeOf(d protoreflect.MessageDescriptor) shape {
	if s, ok := shapes.Load(d.FullName()); ok {
		return s.(shape)
	}
	s := shape{}
	for i := range d.Fields().Len() {
		if f := d.Fields().Get(i); f.Message() != nil || f.IsList() {
			s[f.Number()] = f.Message()
		}
	}
	shapes.Store(d.FullName(), s)
	return s
}

// depthMax is how deep messages may be nested: those of kvd do not contain themselves.
const depthMax = 16

// countParts takes the parts of an encoded message from left; it is false when there are too many. What is malformed is
// left to the decoder.
func countParts(s shape, b []byte, left *int, depth int) bool {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return true
		}
		size := protowire.ConsumeFieldValue(number, kind, b[n:])
		if size < 0 {
			return true
		}
		nested, counted := s[number]
		if counted {
			if *left--; *left < 0 {
				return false
			}
		}
		if nested != nil && kind == protowire.BytesType && depth < depthMax {
			if inner, _ := protowire.ConsumeBytes(b[n:]); !countParts(shapeOf(nested), inner, left, depth+1) {
				return false
			}
		}
		b = b[n+size:]
	}
	return true
}
