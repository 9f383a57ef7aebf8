package raftmeta

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/reflect/protoreflect"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// ErrUnknownCommand: an entry holds what this version does not know. The replica stops; it never skips a command.
var ErrUnknownCommand = errors.New("this version does not know the command: install a newer one")

// CheckCommand refuses, with a *kv.InvalidError, a command that this version does not know. It must be asked before a
// command is proposed: one in the log stops every replica, at each start again.
func CheckCommand(c *kvdv1.MetaCommand) error {
	if c.GetCommand() == nil || hasUnknownField(c.ProtoReflect()) {
		return &kv.InvalidError{Field: "command of the meta group", Bound: "one that this version knows"}
	}
	return nil
}

// decode reads a command of the meta group; nil is one of a shard, which is refused. It fails on what this version
// does not know: an operation, a kind of command, or a field that a newer version has put in, which replicas of that
// version carry out.
func decode(p *kvdv1.Command) (*kvdv1.MetaCommand, error) {
	switch op := kv.Op(p.GetOp()); {
	case p.GetOp() < uint32(kv.OpPut) || p.GetOp() > uint32(kv.OpShape):
		return nil, fmt.Errorf("operation %d: %w", p.GetOp(), ErrUnknownCommand)
	case op != kv.OpMeta:
		return nil, nil
	}
	c := &kvdv1.MetaCommand{}
	if err := c.UnmarshalVT(p.Value); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	if CheckCommand(c) != nil {
		return nil, ErrUnknownCommand
	}
	return c, nil
}

// hasUnknownField looks into a message and those within it. There are no maps in these.
func hasUnknownField(m protoreflect.Message) bool {
	unknown := len(m.GetUnknown()) > 0
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				unknown = unknown || hasUnknownField(v.List().Get(i).Message())
			}
		default:
			unknown = unknown || hasUnknownField(v.Message())
		}
		return !unknown
	})
	return unknown
}
