package server

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

// ofClients are kvd's services for clients.
var ofClients = []string{kvdv1.KV_ServiceDesc.ServiceName, kvdv1.Admin_ServiceDesc.ServiceName}

// method is what the server knows of a method before it is called: who may, and where its time is counted. It is found
// by one look-up in a map, so that a call costs no allocation here.
type method struct {
	name string
	// nodesOnly methods want a certificate of a node.
	nodesOnly bool
	// awaited calls keep a server that stops waiting for their end. A Pipeline does by its operations: it may stay open
	// for ever, like the streams of other nodes and the watch of the health service.
	awaited bool
	// gated calls may be refused before they are read, if the node has more to do than it can; writes write.
	gated, writes bool
	ok            prometheus.Observer
	seconds       *prometheus.HistogramVec
}

// describeMethods describes the methods of all services that are registered.
func (s *Server) describeMethods() {
	for service, info := range s.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			name := "/" + service + "/" + m.Name
			s.methods[name] = &method{
				name: name, nodesOnly: s.Certificates != nil && !slices.Contains(open, service),
				awaited: slices.Contains(ofClients, service) && name != kvdv1.KV_Pipeline_FullMethodName,
				gated:   service == kvdv1.KV_ServiceDesc.ServiceName && !m.IsClientStream && name != kvdv1.KV_Map_FullMethodName, writes: slices.Contains(writing, name),
				ok: s.seconds.WithLabelValues(name, codes.OK.String()), seconds: s.seconds,
			}
		}
	}
}

// took counts a call that has ended.
func (m *method) took(d time.Duration, err error) {
	if err == nil {
		m.ok.Observe(d.Seconds())
		return
	}
	m.seconds.WithLabelValues(m.name, status.Code(err).String()).Observe(d.Seconds())
}
