package test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/transport"
)

// rawCodec sends bytes as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

var _ encoding.CodecV2 = rawCodec{}

// called is a method with what a call of it may take.
type called struct {
	name string
	desc protoreflect.MethodDescriptor
}

// methods are all that a node serves, but those by which the nodes of the test could be taken out of the cluster.
func methods() (list []called) {
	for _, file := range []protoreflect.FileDescriptor{kvdv1.File_kvd_v1_kv_proto, kvdv1.File_kvd_v1_admin_proto, kvdv1.File_kvd_v1_node_proto} {
		for s := range file.Services().Len() {
			service := file.Services().Get(s)
			for m := range service.Methods().Len() {
				method := service.Methods().Get(m)
				if method.Name() != "RemoveNode" && method.Name() != "SetDraining" {
					list = append(list, called{"/" + string(service.FullName()) + "/" + string(method.Name()), method})
				}
			}
		}
	}
	return list
}

// genuine makes of a message between nodes one that a member would send: it names the cluster, and the nodes.
func genuine(d protoreflect.MessageDescriptor, b []byte, cluster uint64, from, to kv.NodeID) []byte {
	m := dynamicpb.NewMessage(d)
	codec := wire.Codec() // Never refuses what it does not know: the standard one.
	if codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, m) != nil {
		return b
	}
	into := m.ProtoReflect()
	if header := d.Fields().ByName("header"); header != nil && header.Message() != nil && header.Message().Fields().ByName("to_node") != nil {
		into = into.Mutable(header).Message()
	}
	for name, value := range map[protoreflect.Name]uint64{
		"cluster_id": cluster, "from_node": uint64(from), "to_node": uint64(to), "from_life": 1,
	} {
		if f := into.Descriptor().Fields().ByName(name); f != nil && f.Kind() == protoreflect.Uint64Kind {
			into.Set(f, protoreflect.ValueOfUint64(value))
		}
	}
	if f := into.Descriptor().Fields().ByName("version"); f != nil && f.Kind() == protoreflect.Uint32Kind {
		into.Set(f, protoreflect.ValueOfUint32(transport.Version))
	}
	out, err := codec.Marshal(m)
	if err != nil {
		return b
	}
	return out.Materialize()
}

// FuzzServices: whatever is sent to a node that runs, to any of its methods, by clients, members, or strangers, in one message
// or two: the call ends, an invalid argument is named, and the node goes on. What a stranger says to it as a node is refused.
func FuzzServices(f *testing.F) {
	all := methods()
	find := func(name string) byte {
		for i, m := range all {
			if strings.HasSuffix(m.name, "/"+name) {
				return byte(i)
			}
		}
		f.Fatal("there is no method ", name)
		return 0
	}
	for i := range all {
		f.Add(byte(i), true, []byte{}, []byte{})
		f.Add(byte(i), false, []byte{}, []byte{})
	}
	add := func(name string, m interface{ MarshalVT() ([]byte, error) }) {
		b, err := m.MarshalVT()
		require.NoError(f, err)
		f.Add(find(name), true, b, b)
	}
	key := []byte("k")
	put := &kvdv1.PutRequest{Key: key, Value: []byte("v"), TtlMs: 9}
	add("Put", put)
	add("Get", &kvdv1.GetRequest{Key: key})
	add("BatchGet", &kvdv1.BatchGetRequest{Keys: [][]byte{key, []byte("l")}})
	add("Delete", &kvdv1.DeleteRequest{Key: key})
	add("DeleteRange", &kvdv1.DeleteRangeRequest{Start: []byte("x"), End: []byte("y")})
	add("Increment", &kvdv1.IncrementRequest{Key: key, Delta: 1})
	add("Txn", &kvdv1.TxnRequest{Compare: []*kvdv1.Compare{{Key: key}}, Then: []*kvdv1.TxnOp{{Op: &kvdv1.TxnOp_Get{Get: &kvdv1.TxnGet{Key: key}}}}})
	add("Scan", &kvdv1.ScanRequest{Prefix: key, Limit: 1})
	add("Pipeline", &kvdv1.PipelineRequest{Ops: []*kvdv1.PipelineOp{{Id: 1, Op: &kvdv1.PipelineOp_Put{Put: put}}}})
	add("SetSetting", &kvdv1.SetSettingRequest{Name: "dead-after", Value: "1h"})
	add("SplitShard", &kvdv1.SplitShardRequest{Shard: 99})
	add("MergeShard", &kvdv1.MergeShardRequest{Shard: 1})
	add("MoveReplica", &kvdv1.MoveReplicaRequest{Shard: 1, FromNode: 1, ToNode: 3})
	add("TransferLeader", &kvdv1.TransferLeaderRequest{Shard: 1})
	add("SetRule", &kvdv1.SetRuleRequest{})
	add("Backup", &kvdv1.BackupRequest{})
	add("Raft", &kvdv1.Envelope{Messages: []*kvdv1.RaftMessage{{Shard: 1, From: 9, To: 2, Term: 9, Type: 3}}})
	add("Snapshot", &kvdv1.SnapshotChunk{Part: &kvdv1.SnapshotChunk_Header{Header: &kvdv1.SnapshotHeader{
		Message: &kvdv1.RaftMessage{Shard: 1, From: 9, To: 2, Term: 9, Type: 7}, State: &kvdv1.ShardState{Descriptor_: &kvdv1.Descriptor{Shard: 1}},
	}}})
	add("Forward", &kvdv1.ForwardRequest{Request: &kvdv1.ForwardRequest_Write{Write: &kvdv1.Command{Op: 1, Key: key}}})
	add("Forward", &kvdv1.ForwardRequest{Request: &kvdv1.ForwardRequest_Get{Get: &kvdv1.ForwardGet{Key: key}}})
	add("Forward", &kvdv1.ForwardRequest{Request: &kvdv1.ForwardRequest_Scan{Scan: &kvdv1.ForwardScan{}}})
	add("Forward", &kvdv1.ForwardRequest{Request: &kvdv1.ForwardRequest_Meta{Meta: &kvdv1.MetaCommand{}}})
	add("Forward", &kvdv1.ForwardRequest{Request: &kvdv1.ForwardRequest_Order{Order: &kvdv1.Order{Shard: 1}}})
	add("Join", &kvdv1.JoinRequest{Name: "n9", Address: "h:1", StoreId: 9, Version: transport.Version})
	add("Found", &kvdv1.FoundRequest{FromName: "n1", StoreId: 1})
	add("Explain", &kvdv1.ExplainRequest{})

	c := New(f, 1)
	c.StartAll()
	node := c.Nodes[0]
	joined, err := transport.Join(nil)(c.Context(), c.Addresses()[0], &kvdv1.JoinRequest{Name: "n2", Address: "127.0.0.1:1", StoreId: 7})
	require.NoError(f, err)
	conn, err := grpc.NewClient(c.Addresses()[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(f, err)
	f.Cleanup(func() { _ = conn.Close() })
	member := kv.NodeID(joined.NodeId)
	f.Fuzz(func(t *testing.T, which byte, known bool, first, second []byte) {
		m := all[int(which)%len(all)]
		ofNodes := strings.HasPrefix(m.name, "/kvd.v1.NodeService/")
		if ofNodes && known {
			first, second = genuine(m.desc.Input(), first, joined.ClusterId, member, 1), genuine(m.desc.Input(), second, joined.ClusterId, member, 1)
		}
		err := call(conn, m, first, second)
		code := status.Code(err)
		if !ofNodes && code == codes.InvalidArgument {
			require.NotEmpty(t, wire.DetailOf(err).GetField(), "%s: %v", m.name, err)
		}
		if ofNodes && !known && !strings.HasSuffix(m.name, "/Join") && !strings.HasSuffix(m.name, "/Found") {
			require.Error(t, err, m.name)
		}
		// A message of a later term that a member may send unseats the only replica, until its next tick.
		require.Eventually(t, func() bool { return node.Ready() == nil }, 20*time.Second, time.Millisecond)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_, err = kvdv1.NewKVClient(conn).Get(ctx, &kvdv1.GetRequest{Key: []byte("k")})
		require.NoError(t, err, "after %s", m.name)
	})
}

// call calls a method with one message, or two if it takes a stream, and reads all answers that come at once.
func call(conn *grpc.ClientConn, m called, first, second []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	raw := grpc.ForceCodecV2(rawCodec{})
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: m.desc.IsStreamingClient(), ServerStreams: m.desc.IsStreamingServer()}, m.name, raw)
	if err != nil {
		return err
	}
	sent := [][]byte{first}
	if m.desc.IsStreamingClient() {
		sent = append(sent, second)
	}
	for _, b := range sent {
		b = bytes.Clone(b)
		if err := stream.SendMsg(&b); err != nil {
			break // The answer says why.
		}
	}
	_ = stream.CloseSend()
	for range 100 {
		var answer []byte
		if err := stream.RecvMsg(&answer); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if !m.desc.IsStreamingServer() {
			return nil
		}
	}
	return nil
}
