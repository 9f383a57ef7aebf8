package shard

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// format is the first byte of an entry's payload. A replica that does not know it stops: an entry that one replica
// skips and another applies would part them.
const format = 1

// ErrUnknownCommand: an entry holds what this version does not know. The replica stops; it never skips a command.
var ErrUnknownCommand = errors.New("the log holds a command that this version does not know")

// Encode gives the payload of a Raft entry: a format byte and the batch.
func Encode(b *kvdv1.Batch) ([]byte, error) {
	data := make([]byte, 1+b.SizeVT())
	data[0] = format
	if _, err := b.MarshalToSizedBufferVT(data[1:]); err != nil {
		return nil, fmt.Errorf("encode a batch: %w", err)
	}
	return data, nil
}

// Decode reads the payload of a Raft entry; an empty one gives no batch. The batch shares no memory with data. An
// error stops the replica.
func Decode(data []byte) (*kvdv1.Batch, error) { return decode(data, bytes.Clone) }

// DecodeShared is Decode for who keeps nothing of the batch: its keys and values are parts of data.
func DecodeShared(data []byte) (*kvdv1.Batch, error) {
	return decode(data, func(part []byte) []byte { return part })
}

// decode reads a payload; own makes a key or a value of a part of it.
func decode(data []byte, own func(part []byte) []byte) (*kvdv1.Batch, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if data[0] != format {
		return nil, fmt.Errorf("format %d of an entry: %w", data[0], ErrUnknownCommand)
	}
	b, err := decodeBatch(data[1:], own)
	if err != nil {
		return nil, fmt.Errorf("decode a batch: %w", err)
	}
	if len(b.ProtoReflect().GetUnknown()) > 0 {
		return nil, fmt.Errorf("a field of a batch: %w", ErrUnknownCommand)
	}
	for i, p := range b.Commands {
		if err := known(p); err != nil {
			return nil, fmt.Errorf("command %d of a batch: %w", i, err)
		}
		if hasUnknownField(p) {
			return nil, fmt.Errorf("a field of command %d of a batch: %w", i, ErrUnknownCommand)
		}
	}
	return b, nil
}

// decodeBatch decodes a batch, with all of its commands in one piece of memory.
func decodeBatch(message []byte, own func(part []byte) []byte) (*kvdv1.Batch, error) {
	commands := 0
	if err := fields(message, func(number protowire.Number, _, text []byte) error {
		if number == commandsField && text != nil {
			commands++
		}
		return nil
	}); err != nil {
		return nil, err
	}
	b := &kvdv1.Batch{Commands: make([]*kvdv1.Command, 0, commands)}
	all := make([]kvdv1.Command, commands)
	err := fields(message, func(number protowire.Number, field, text []byte) error {
		if number != commandsField || text == nil {
			return b.UnmarshalVT(field)
		}
		c := &all[len(b.Commands)]
		b.Commands = append(b.Commands, c)
		return decodeCommand(c, text, own)
	})
	return b, err
}

func decodeCommand(c *kvdv1.Command, message []byte, own func(part []byte) []byte) error {
	return fields(message, func(number protowire.Number, field, text []byte) error {
		switch {
		case number == keyField && text != nil:
			c.Key = own(text)
		case number == valueField && text != nil:
			c.Value = own(text)
		default:
			return c.UnmarshalVT(field)
		}
		return nil
	})
}

// fields calls f for the fields of a message, each as it is encoded, and for what has a length with that, which is not nil.
func fields(message []byte, f func(number protowire.Number, field, text []byte) error) error {
	for len(message) > 0 {
		number, kind, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return protowire.ParseError(tag)
		}
		size := protowire.ConsumeFieldValue(number, kind, message[tag:])
		if size < 0 {
			return protowire.ParseError(size)
		}
		field := message[:tag+size]
		var text []byte
		if kind == protowire.BytesType {
			text, _ = protowire.ConsumeBytes(field[tag:])
		}
		if err := f(number, field, text); err != nil {
			return err
		}
		message = message[tag+size:]
	}
	return nil
}

// The numbers of the fields that are read here: of a Batch, and of a Command.
const (
	commandsField protowire.Number = 5
	opField       protowire.Number = 1
	keyField      protowire.Number = 2
	valueField    protowire.Number = 4
)

// Shapes reports whether the payload of an entry holds a change of the shape, which is the only command of its entry, without
// decoding the rest. One that cannot be read counts as that.
func Shapes(data []byte) bool {
	if len(data) == 0 || data[0] != format {
		return len(data) > 0
	}
	first, _, ok := field(data[1:], commandsField, protowire.BytesType)
	if !ok || first == nil {
		return !ok
	}
	_, op, ok := field(first, opField, protowire.VarintType)
	return !ok || op == uint64(kv.OpShape)
}

// field finds the first field of a message with a number, of one of two types; nothing if there is none, and not ok if it cannot
// be read up to there.
func field(message []byte, number protowire.Number, kind protowire.Type) (text []byte, value uint64, ok bool) {
	for len(message) > 0 {
		found, of, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil, 0, false
		}
		message = message[n:]
		if found == number && of == kind {
			if kind == protowire.VarintType {
				value, n = protowire.ConsumeVarint(message)
			} else {
				text, n = protowire.ConsumeBytes(message)
			}
			return text, value, n >= 0
		}
		if n = protowire.ConsumeFieldValue(found, of, message); n < 0 {
			return nil, 0, false
		}
		message = message[n:]
	}
	return nil, 0, true
}

// hasUnknownField reports whether a newer version put something into the command that this one would skip.
func hasUnknownField(p *kvdv1.Command) bool {
	if len(p.ProtoReflect().GetUnknown()) > 0 {
		return true
	}
	if p.Condition != nil && len(p.Condition.ProtoReflect().GetUnknown()) > 0 {
		return true
	}
	for _, x := range p.Compare {
		if len(x.ProtoReflect().GetUnknown()) > 0 {
			return true
		}
		if x.Condition != nil && len(x.Condition.ProtoReflect().GetUnknown()) > 0 {
			return true
		}
	}
	for _, ops := range [2][]*kvdv1.CommandTxnOp{p.Then, p.Else} {
		for _, o := range ops {
			if len(o.ProtoReflect().GetUnknown()) > 0 {
				return true
			}
		}
	}
	for _, d := range p.Due {
		if len(d.ProtoReflect().GetUnknown()) > 0 {
			return true
		}
	}
	return p.Shape != nil && HasUnknown(p.Shape.ProtoReflect())
}

// HasUnknown reports whether a newer version put something into a message, or one within it, however deep. It is slow, and
// for what comes seldom. There are no maps in the log's messages, nor in those that their parts come from.
func HasUnknown(m protoreflect.Message) bool {
	unknown := len(m.GetUnknown()) > 0
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				unknown = unknown || HasUnknown(v.List().Get(i).Message())
			}
		default:
			unknown = unknown || HasUnknown(v.Message())
		}
		return !unknown
	})
	return unknown
}

// known refuses a command with a number for an operation or a condition that this version gives no meaning.
func known(p *kvdv1.Command) error {
	if p.GetOp() < uint32(kv.OpPut) || p.GetOp() > uint32(kv.OpShape) {
		return fmt.Errorf("operation %d: %w", p.GetOp(), ErrUnknownCommand)
	}
	if p.Op == uint32(kv.OpShape) && p.GetShape().GetShape() == nil {
		return fmt.Errorf("a change of the shape: %w", ErrUnknownCommand)
	}
	if kind := p.Condition.GetKind(); kind > uint32(kv.IfValue) {
		return fmt.Errorf("condition %d: %w", kind, ErrUnknownCommand)
	}
	for _, x := range p.Compare {
		if kind := x.GetCondition().GetKind(); kind > uint32(kv.IfValue) {
			return fmt.Errorf("comparison %d: %w", kind, ErrUnknownCommand)
		}
	}
	for _, ops := range [2][]*kvdv1.CommandTxnOp{p.Then, p.Else} {
		for _, o := range ops {
			if o.GetKind() < uint32(kv.TxnGet) || o.GetKind() > uint32(kv.TxnDelete) {
				return fmt.Errorf("operation %d of a transaction: %w", o.GetKind(), ErrUnknownCommand)
			}
		}
	}
	return nil
}

// EncodeCommand converts a command that CheckCommand accepts; keys and values are shared.
func EncodeCommand(c *kv.Command) *kvdv1.Command {
	p := &kvdv1.Command{
		Op: uint32(c.Op), Key: c.Key, End: c.End, Value: c.Value, Condition: encodeCondition(c.Cond),
		TtlMs: c.TTL, ExpireAtMs: c.ExpireAt, Delta: c.Delta, Id: c.ID,
		Limit: uint32(max(0, min(c.Limit, math.MaxInt32))),
	}
	if c.Txn != nil {
		for _, x := range c.Txn.Compare {
			p.Compare = append(p.Compare, &kvdv1.CommandCompare{Key: x.Key, Condition: encodeCondition(x.Cond)})
		}
		p.Then, p.Else = encodeOps(c.Txn.Then), encodeOps(c.Txn.Else)
	}
	for _, d := range c.Due {
		p.Due = append(p.Due, &kvdv1.CommandDue{ExpireAtMs: d.ExpireAt, Key: d.Key})
	}
	return p
}

func encodeCondition(c kv.Condition) *kvdv1.CommandCondition {
	if c.Kind == kv.Always {
		return nil
	}
	return &kvdv1.CommandCondition{Kind: uint32(c.Kind), Revision: uint64(c.Revision), Value: c.Value}
}

func encodeOps(ops []kv.TxnOp) []*kvdv1.CommandTxnOp {
	var list []*kvdv1.CommandTxnOp
	for _, o := range ops {
		list = append(list, &kvdv1.CommandTxnOp{
			Kind: uint32(o.Kind), Key: o.Key, Value: o.Value, TtlMs: o.TTL, ExpireAtMs: o.ExpireAt,
		})
	}
	return list
}

// DecodeCommand converts a command; keys and values are shared. Of an OpShape only the operation is converted. It fails
// on what this version does not know.
func DecodeCommand(p *kvdv1.Command) (kv.Command, error) {
	if err := known(p); err != nil {
		return kv.Command{}, err
	}
	c := kv.Command{
		Op: kv.Op(p.Op), Key: p.Key, End: p.End, Value: p.Value, Cond: decodeCondition(p.Condition),
		TTL: p.TtlMs, ExpireAt: p.ExpireAtMs, Delta: p.Delta, Limit: int(p.Limit), ID: p.Id,
	}
	if c.Op == kv.OpTxn {
		c.Txn = &kv.Txn{Then: decodeOps(p.Then), Else: decodeOps(p.Else)}
		for _, x := range p.Compare {
			c.Txn.Compare = append(c.Txn.Compare, kv.Compare{Key: x.Key, Cond: decodeCondition(x.Condition)})
		}
	}
	for _, d := range p.Due {
		c.Due = append(c.Due, kv.Due{ExpireAt: d.ExpireAtMs, Key: d.Key})
	}
	return c, nil
}

func decodeCondition(p *kvdv1.CommandCondition) kv.Condition {
	if p == nil {
		return kv.Condition{}
	}
	return kv.Condition{Kind: kv.ConditionKind(p.Kind), Revision: kv.Revision(p.Revision), Value: p.Value}
}

func decodeOps(list []*kvdv1.CommandTxnOp) []kv.TxnOp {
	var ops []kv.TxnOp
	for _, p := range list {
		ops = append(ops, kv.TxnOp{
			Kind: kv.TxnOpKind(p.Kind), Key: p.Key, Value: p.Value, TTL: p.TtlMs, ExpireAt: p.ExpireAtMs,
		})
	}
	return ops
}

// EncodeResult converts a result for the node that forwarded the command; keys and values are shared.
func EncodeResult(r *kv.Result) *kvdv1.CommandResult {
	p := &kvdv1.CommandResult{
		Status: uint32(r.Status), Revision: uint64(r.Revision), Found: r.Found, Counter: r.Counter,
		Count: uint64(r.Count), Resume: r.Resume, Succeeded: r.Succeeded, Reason: r.Reason,
	}
	for i := range r.Ops {
		rec := &r.Ops[i].Record
		p.Ops = append(p.Ops, &kvdv1.TxnOpResult{
			Found: r.Ops[i].Found, Value: rec.Value, Revision: uint64(rec.Revision), ExpireAtMs: rec.ExpireAt,
		})
	}
	return p
}

// DecodeResult converts a result; keys and values are shared. It fails on a status that this version does not know,
// and then nobody can say whether the command was done.
func DecodeResult(p *kvdv1.CommandResult) (kv.Result, error) {
	if p.GetStatus() < uint32(kv.Done) || p.GetStatus() > uint32(kv.Frozen) {
		return kv.Result{}, fmt.Errorf("status %d of a result: %w", p.GetStatus(), kv.ErrUnknown)
	}
	if p.Count > math.MaxInt32 {
		return kv.Result{}, fmt.Errorf("count %d of a result: %w", p.Count, kv.ErrUnknown)
	}
	r := kv.Result{
		Status: kv.Status(p.Status), Revision: kv.Revision(p.Revision), Found: p.Found, Counter: p.Counter,
		Count: int(p.Count), Succeeded: p.Succeeded, Reason: p.Reason,
	}
	if len(p.Resume) > 0 {
		r.Resume = p.Resume
	}
	for _, o := range p.Ops {
		r.Ops = append(r.Ops, kv.TxnOpResult{Found: o.Found, Record: kv.Record{
			Value: o.Value, Revision: kv.Revision(o.Revision), ExpireAt: o.ExpireAtMs,
		}})
	}
	return r, nil
}
