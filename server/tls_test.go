package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

// authority signs certificates in a directory.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.key = a.newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	require.NoError(t, err)
	a.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	return key
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(name, kind string, der []byte) {
	require.NoError(a.t, os.WriteFile(a.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// sign writes name.pem and name.key.
func (a *authority) sign(name string, serial int64, names ...string) {
	a.signUntil(time.Now().Add(time.Hour), name, serial, names...)
}

func (a *authority) signUntil(end time.Time, name string, serial int64, names ...string) {
	key := a.newKey()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotAfter: end, DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, a.cert, &key.PublicKey, a.key)
	require.NoError(a.t, err)
	a.write(name+".pem", "CERTIFICATE", der)
	b, err := x509.MarshalECPrivateKey(key)
	require.NoError(a.t, err)
	a.write(name+".key", "EC PRIVATE KEY", b)
}

func (a *authority) load(name string) *Certificates {
	c, err := LoadCertificates(a.path(name+".pem"), a.path(name+".key"), a.path("ca.pem"))
	require.NoError(a.t, err)
	return c
}

// TestTLS: clients need the CA only, nodes a certificate of a node, and changed files count from Reload on.
func TestTLS(t *testing.T) {
	a := newAuthority(t)
	a.sign("node", 2, NodeName)
	a.sign("client", 3, "somebody")
	certs := a.load("node")
	s := New(Config{Backend: newMemory(), Nodes: kvdv1.UnimplementedNodeServiceServer{}, Certificates: certs})
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = s.Serve(lis) }()
	defer s.Stop(0)
	local := func(creds credentials.TransportCredentials) error {
		conn, err := grpc.NewClient("passthrough:///"+lis.Addr().String(), grpc.WithTransportCredentials(creds))
		require.NoError(t, err)
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := kvdv1.NewKVClient(conn).Put(ctx, &kvdv1.PutRequest{Key: []byte("k")}); err != nil {
			return err
		}
		_, err = kvdv1.NewNodeServiceClient(conn).Local(ctx, &kvdv1.LocalRequest{})
		_, joining := kvdv1.NewNodeServiceClient(conn).Join(ctx, &kvdv1.JoinRequest{})
		require.Equal(t, status.Code(err), status.Code(joining), "who joins is a node, too")
		return err
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	plain := credentials.NewTLS(&tls.Config{RootCAs: pool})
	require.Equal(t, codes.Unauthenticated, status.Code(local(plain)), "a client without a certificate")
	require.Equal(t, codes.Unauthenticated, status.Code(local(a.load("client").Client())), "a certificate of no node")
	require.Equal(t, codes.Unimplemented, status.Code(local(certs.Client())), "a node gets through to the service")
	require.Equal(t, codes.Unavailable, status.Code(local(credentials.NewTLS(&tls.Config{RootCAs: x509.NewCertPool()}))), "another CA")

	other := newAuthority(t)
	other.sign("node", 2, NodeName)
	require.Equal(t, codes.Unavailable, status.Code(local(other.load("node").Client())), "a node of another CA")

	serial := func() int64 {
		conn, err := tls.Dial("tcp", lis.Addr().String(), &tls.Config{RootCAs: pool, NextProtos: []string{"h2"}})
		require.NoError(t, err)
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	require.EqualValues(t, 2, serial())
	a.sign("node", 9, NodeName)
	require.NoError(t, certs.Reload())
	require.EqualValues(t, 9, serial())
	require.NoError(t, os.WriteFile(a.path("node.pem"), []byte("broken"), 0o600))
	require.Error(t, certs.Reload())
	require.EqualValues(t, 9, serial(), "after an error the old ones stay")
}

func TestIncompleteTLS(t *testing.T) {
	_, err := LoadCertificates("a", "", "b")
	require.ErrorContains(t, err, "all three")
}

// TestExpiredCertificate: it is refused with a word at the start, and a reload keeps the one that is still good.
func TestExpiredCertificate(t *testing.T) {
	a := newAuthority(t)
	a.sign("node", 2, NodeName)
	certs := a.load("node")
	good := certs.now.Load()
	a.signUntil(time.Now().Add(-time.Minute), "node", 3, NodeName)
	require.ErrorContains(t, certs.Reload(), "expired")
	require.Same(t, good, certs.now.Load())
	_, err := LoadCertificates(a.path("node.pem"), a.path("node.key"), a.path("ca.pem"))
	require.ErrorContains(t, err, "tls-cert: ")
}
