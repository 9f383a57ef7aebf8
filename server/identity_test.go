package server

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

// signFor is sign for addresses of one's choice.
func (a *authority) signFor(name string, ips []net.IP, names ...string) {
	key := a.newKey()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(5), NotAfter: time.Now().Add(time.Hour), DNSNames: names, IPAddresses: ips,
	}, a.cert, &key.PublicKey, a.key)
	require.NoError(a.t, err)
	a.write(name+".pem", "CERTIFICATE", der)
	b, err := x509.MarshalECPrivateKey(key)
	require.NoError(a.t, err)
	a.write(name+".key", "EC PRIVATE KEY", b)
}

// TestNodesCheckWhoAnswers: a node that calls another by its address talks only to who has a node's certificate for it.
func TestNodesCheckWhoAnswers(t *testing.T) {
	a := newAuthority(t)
	here := []net.IP{net.IPv4(127, 0, 0, 1)}
	a.signFor("self", here, NodeName)
	for name, c := range map[string]struct {
		ips    []net.IP
		names  []string
		target string
		want   codes.Code
	}{
		"a node":                      {here, []string{NodeName}, "127.0.0.1", codes.Unimplemented},
		"a node by its name":          {nil, []string{NodeName, "localhost"}, "localhost", codes.Unimplemented},
		"a client in a node's place":  {here, []string{"somebody"}, "127.0.0.1", codes.Unavailable},
		"a node of another address":   {[]net.IP{net.IPv4(192, 0, 2, 1)}, []string{NodeName}, "127.0.0.1", codes.Unavailable},
		"a node of another name":      {here, []string{NodeName, "elsewhere"}, "localhost", codes.Unavailable},
		"a node without an address":   {nil, []string{NodeName}, "127.0.0.1", codes.Unavailable},
		"a client by its proper name": {nil, []string{"localhost"}, "localhost", codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			a := *a
			a.t = t
			a.signFor("other", c.ips, c.names...)
			s := New(Config{Backend: newMemory(), Nodes: kvdv1.UnimplementedNodeServiceServer{}, Certificates: a.load("other")})
			lis, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			go func() { _ = s.Serve(lis) }()
			defer s.Stop(0)
			target := fmt.Sprintf("passthrough:///%s:%d", c.target, lis.Addr().(*net.TCPAddr).Port)
			conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(a.load("self").Client()))
			require.NoError(t, err)
			defer conn.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err = kvdv1.NewNodeServiceClient(conn).Local(ctx, &kvdv1.LocalRequest{})
			require.Equal(t, c.want, status.Code(err), "%v", err)
		})
	}
}

// TestEveryMethodIsGuarded calls each method of each service over a TLS connection without a certificate: what was not
// meant for everybody is refused, and a service that nobody listed is, too.
func TestEveryMethodIsGuarded(t *testing.T) {
	a := newAuthority(t)
	a.sign("node", 2, NodeName)
	s := New(Config{Backend: newTable(), Nodes: kvdv1.UnimplementedNodeServiceServer{}, Certificates: a.load("node")})
	s.grpc.RegisterService(&grpc.ServiceDesc{
		ServiceName: "kvd.v1.Forgotten", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Call", Handler: unguarded}},
	}, struct{}{})
	s.describeMethods()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = s.Serve(lis) }()
	defer s.Stop(0)
	creds, err := credentials.NewClientTLSFromFile(a.path("ca.pem"), "")
	require.NoError(t, err)
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(creds))
	require.NoError(t, err)
	defer conn.Close()
	open := map[string]bool{
		"kvd.v1.KV": true, "kvd.v1.Admin": true, "grpc.health.v1.Health": true,
		"grpc.reflection.v1.ServerReflection": true, "grpc.reflection.v1alpha.ServerReflection": true,
	}
	seen := 0
	for service, info := range s.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			seen++
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, fmt.Sprintf("/%s/%s", service, m.Name))
			require.NoError(t, err)
			_ = stream.SendMsg(&kvdv1.MapRequest{})
			_ = stream.CloseSend()
			err = stream.RecvMsg(&kvdv1.MapRequest{})
			cancel()
			if open[service] {
				require.NotEqual(t, codes.Unauthenticated, status.Code(err), "%s/%s", service, m.Name)
			} else {
				require.Equal(t, codes.Unauthenticated, status.Code(err), "%s/%s: %v", service, m.Name, err)
			}
		}
	}
	require.Greater(t, seen, 20)
}

// unguarded is the handler of a service that was forgotten in the list.
func unguarded(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
	r := &kvdv1.MapRequest{}
	if err := decode(r); err != nil {
		return nil, err
	}
	return interceptor(ctx, r, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/kvd.v1.Forgotten/Call"}, func(context.Context, any) (any, error) {
		return &kvdv1.MapResponse{}, nil
	})
}

// TestChangedFilesAreNoticed: also when the new file is older than the newest of the others.
func TestChangedFilesAreNoticed(t *testing.T) {
	a := newAuthority(t)
	a.sign("node", 2, NodeName)
	c := a.load("node")
	require.False(t, c.changed())
	old := time.Now().Add(-24 * time.Hour)
	a.sign("node", 3, NodeName)
	for _, name := range []string{"node.pem", "node.key"} {
		require.NoError(t, os.Chtimes(a.path(name), old, old))
	}
	require.True(t, c.changed())
	require.NoError(t, c.Reload())
	require.False(t, c.changed())
	require.NoError(t, os.Remove(a.path("ca.pem")))
	require.True(t, c.changed())
	require.Error(t, c.Reload())
	require.True(t, c.changed(), "what could not be read is tried again")
}
