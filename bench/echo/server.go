// Package echo is the ceiling of every store behind gRPC: a server that stores nothing, and answers with messages of kvd's
// own shapes and sizes. It has the settings of a gRPC server as it comes, and kvd's codec.
package echo

import (
	"context"
	"errors"
	"io"
	"net"

	"google.golang.org/grpc"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// Server answers every get with a value, and every put that it was done. The request says in the place of the map's version
// how long the value is to be, in bytes.
type Server struct {
	kvdv1.UnimplementedKVServer
	values []byte
	header *kvdv1.ResponseHeader
	grpc   *grpc.Server
}

// New makes a server.
func New() *Server {
	s := &Server{
		values: make([]byte, kv.ValueBytesMax),
		header: &kvdv1.ResponseHeader{Shard: 1000, Epoch: &kvdv1.Epoch{Version: 1, Config: 1}, Revision: 1 << 20, Node: 1},
		grpc: grpc.NewServer(
			grpc.ForceServerCodecV2(wire.ServerCodec()), grpc.MaxRecvMsgSize(kv.MessageBytesMax), grpc.MaxSendMsgSize(kv.MessageBytesMax),
		),
	}
	kvdv1.RegisterKVServer(s.grpc, s)
	return s
}

// Serve serves until Stop.
func (s *Server) Serve(lis net.Listener) error { return s.grpc.Serve(lis) }

// Stop ends it.
func (s *Server) Stop() { s.grpc.Stop() }

// Get answers with the value.
func (s *Server) Get(_ context.Context, r *kvdv1.GetRequest) (*kvdv1.GetResponse, error) {
	return s.got(r), nil
}

// Put answers that it was done.
func (s *Server) Put(context.Context, *kvdv1.PutRequest) (*kvdv1.PutResponse, error) {
	return s.put(), nil
}

func (s *Server) got(r *kvdv1.GetRequest) *kvdv1.GetResponse {
	n := min(r.GetHeader().GetVersion(), uint64(len(s.values)))
	return &kvdv1.GetResponse{Header: s.header, Found: true, Value: s.values[:n], Revision: 1 << 20}
}

func (s *Server) put() *kvdv1.PutResponse {
	return &kvdv1.PutResponse{Header: s.header, Succeeded: true, Revision: 1 << 20}
}

// Pipeline answers each message with one.
func (s *Server) Pipeline(stream kvdv1.KV_PipelineServer) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		answer := &kvdv1.PipelineResponse{Results: make([]*kvdv1.PipelineResult, len(m.GetOps()))}
		for i, op := range m.GetOps() {
			r := &kvdv1.PipelineResult{Id: op.GetId()}
			if op.GetPut() != nil {
				r.Result = &kvdv1.PipelineResult_Put{Put: s.put()}
			} else {
				r.Result = &kvdv1.PipelineResult_Get{Get: s.got(op.GetGet())}
			}
			answer.Results[i] = r
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}
