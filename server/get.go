package server

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
)

// A Get is most of what a node is asked, and from memory it takes less than gRPC does for it. So its call has a handler of
// its own that does what the generated one and Server.unary do together, and requests and answers are used again.

// oneGet is a Get under way: what the request is decoded into, and the answer until it is encoded. What the backend keeps
// of a request must not be used again: only those are that were answered from memory, of which it keeps nothing.
type oneGet struct {
	getRequest
	answer getAnswer
}

var gets = sync.Pool{New: func() any { return &oneGet{} }}

// getRequest is what a GetRequest is decoded into, again and again.
type getRequest struct {
	request kvdv1.GetRequest
	header  kvdv1.RequestHeader
}

// getReply is a oneGet as the codec encodes it.
type getReply oneGet

// Reset makes it empty; the key's memory stays.
func (g *getRequest) Reset() {
	key := g.request.Key[:0]
	g.request.Reset()
	g.header.Reset()
	g.request.Key = key
}

// UnmarshalVT decodes a GetRequest.
func (g *getRequest) UnmarshalVT(b []byte) error {
	g.request.Header = &g.header
	return g.request.UnmarshalVT(b)
}

// SizeVT is there for the codec, which encodes no request here.
func (g *getRequest) SizeVT() int { return g.request.SizeVT() }

// MarshalToSizedBufferVT is there for the codec.
func (g *getRequest) MarshalToSizedBufferVT(b []byte) (int, error) {
	return g.request.MarshalToSizedBufferVT(b)
}

// Reset makes it empty.
func (g *getReply) Reset() { g.answer.response.Reset() }

// UnmarshalVT is there for the codec, which decodes no answer here.
func (g *getReply) UnmarshalVT(b []byte) error { return g.answer.response.UnmarshalVT(b) }

// SizeVT is the size of the GetResponse.
func (g *getReply) SizeVT() int { return g.answer.response.SizeVT() }

// MarshalToSizedBufferVT encodes the GetResponse.
func (g *getReply) MarshalToSizedBufferVT(b []byte) (int, error) {
	return g.answer.response.MarshalToSizedBufferVT(b)
}

// Encoded gives it back: nothing refers to it any more.
func (g *getReply) Encoded() {
	g.answer = getAnswer{} // It must not hold the value.
	gets.Put((*oneGet)(g))
}

var _ wire.Encoded = (*getReply)(nil)

// kvService is kvd.v1.KV with the handler for Get.
func (s *Server) kvService() *grpc.ServiceDesc {
	desc := kvdv1.KV_ServiceDesc
	desc.Methods = slices.Clone(desc.Methods)
	for i := range desc.Methods {
		if desc.Methods[i].MethodName == "Get" {
			desc.Methods[i].Handler = s.handleGet
		}
	}
	return &desc
}

// handleGet serves a Get.
func (s *Server) handleGet(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	g := gets.Get().(*oneGet)
	if err := decode(&g.getRequest); err != nil {
		return nil, err
	}
	s.calls.Add(1)
	defer s.calls.Add(-1)
	began := time.Now()
	if s.api.fillGet(&g.answer, &g.request) {
		s.get.took(time.Since(began), nil)
		return (*getReply)(g), nil
	}
	resp, err := s.api.Get(ctx, &g.request)
	s.get.took(time.Since(began), err)
	if err != nil {
		return nil, err
	}
	return resp, nil
}
