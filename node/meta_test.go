package node_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/internal/test"
	"github.com/kvdstore/kvd/kv"
)

// TestCraftedMetaCommands: what would stop every replica of the meta group when it is applied, or is too large to reach
// one, is refused before it is in the log.
func TestCraftedMetaCommands(t *testing.T) {
	c := cluster{test.New(t, 1), t}
	c.StartAll()
	setting := func(name string) *kvdv1.MetaCommand {
		return &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetSetting{SetSetting: &kvdv1.SettingValue{Name: name, Value: "16"}}}
	}
	newer := setting("log-keep")
	newer.GetSetSetting().ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 5))
	for name, command := range map[string]*kvdv1.MetaCommand{
		"missing": nil, "empty": {}, "newer": newer, "too large": setting(string(make([]byte, kv.ValueBytesMax))),
	} {
		resp := c.Nodes[0].Forward(c.Context(), &kvdv1.ForwardRequest{Request: &kvdv1.ForwardRequest_Meta{Meta: command}})
		require.ErrorAs(t, wire.ToError(wire.Write, resp.GetError()), new(*kv.InvalidError), name)
	}
	require.NoError(t, c.Nodes[0].SetSetting(c.Context(), "log-keep", "16"))
}
