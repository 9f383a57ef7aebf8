package client_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/client"
)

// TestClose: with calls, a scan, a pipeline, a silent node and a node that is away, Close ends everything: no goroutine
// and no connection is left (the bubble fails if one is), each call has its answer, and says the right thing.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		n := w.node("n1:1")
		entered := make(chan struct{}, 10)
		forever := func(ctx context.Context) error {
			entered <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}
		n.put = func(ctx context.Context, _ int, _ *kvdv1.PutRequest) (*kvdv1.PutResponse, error) {
			return nil, forever(ctx)
		}
		n.get = func(ctx context.Context, _ *kvdv1.GetRequest) (*kvdv1.GetResponse, error) { return nil, forever(ctx) }
		// The leader is away: it is found out, and from then on asked in the background.
		n.know = &kvdv1.MapResponse{
			Version: 1, Nodes: []*kvdv1.Node{{Node: 1, Address: "n1:1"}, {Node: 2, Address: "away:1"}},
			Descriptors: []*kvdv1.Descriptor{{Shard: 1, Epoch: &kvdv1.Epoch{Version: 1, Config: 1}, Replicas: []*kvdv1.Replica{{Node: 2, Replica: 2}, {Node: 1, Replica: 1}}, Leader: 2}},
		}
		c := w.connect(func(c *client.Config) { c.Connections = 3 }, "n1:1")
		p := c.Pipeline()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_, err := c.Map(ctx)
		require.NoError(t, err)
		writes, reads := make(chan error, 10), make(chan error, 10)
		for range 4 {
			go func() { _, err := c.Put(ctx, b("k"), b("v")); writes <- err }()
		}
		go func() { _, _, err := c.Get(ctx, b("k")); reads <- err }()
		p.GoPut(ctx, b("k"), b("v"), func(_ client.PutResult, err error) { writes <- err })
		p.GoGet(ctx, b("k"), func(_ client.Item, _ bool, err error) { reads <- err })
		for range 5 + 2 { // A silent read may come again.
			<-entered
		}
		began := time.Now()
		require.NoError(t, c.Close())
		require.Zero(t, time.Since(began), "Close waited for something")
		for range 5 {
			err := <-writes
			require.ErrorIs(t, err, client.ErrUnknown)
			require.NotErrorIs(t, err, client.ErrNotDone)
		}
		for range 2 {
			err := <-reads
			require.ErrorIs(t, err, client.ErrNotDone)
			require.ErrorIs(t, err, client.ErrClosed)
		}
		require.NoError(t, c.Close())
		for name, call := range everyCall(c) {
			err := call(ctx)
			require.ErrorIs(t, err, client.ErrClosed, name)
			require.ErrorIs(t, err, client.ErrNotDone, name)
		}
		w.mu.Lock()
		dials := w.dials
		w.mu.Unlock()
		time.Sleep(time.Hour) // The bubble's clock: nothing comes back.
		synctest.Wait()
		require.Equal(t, dials, w.dialed())
		require.Zero(t, w.open(), "a connection is open")
		w.stop()
	})
}

// certificate signs one for a name, with a key of its own or that of an authority.
func certificate(t *testing.T, name string, by *tls.Certificate) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: by == nil, BasicConstraintsValid: true,
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.Leaf, by.PrivateKey.(*ecdsa.PrivateKey)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// TestTLS: a client believes a node whose certificate its authority has signed for the node's name, and no other; what it
// then cannot write was not done, and it says why.
func TestTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		authority, stranger := certificate(t, "authority", nil), certificate(t, "stranger", nil)
		trust := func(c tls.Certificate) *tls.Config {
			pool := x509.NewCertPool()
			pool.AddCert(c.Leaf)
			return &tls.Config{RootCAs: pool}
		}
		serving := &tls.Config{Certificates: []tls.Certificate{certificate(t, "n1", &authority)}}
		w := newNetwork(t, grpc.Creds(credentials.NewTLS(serving)))
		n := w.node("n1:1")
		w.mu.Lock()
		w.nodes["other:1"] = n // The same node under a name that its certificate does not have.
		w.mu.Unlock()
		defer w.stop()
		put := func(address string, config *tls.Config, pipelined bool) error {
			c := w.connect(func(c *client.Config) { c.TLS = config }, address)
			defer c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			if pipelined {
				_, err := c.Pipeline().Put(ctx, b("k"), b("v"))
				return err
			}
			_, err := c.Put(ctx, b("k"), b("v"))
			return err
		}
		for _, pipelined := range []bool{false, true} {
			came := len(n.came())
			require.NoError(t, put("n1:1", trust(authority), pipelined))
			require.Len(t, n.came(), came+1)
			for why, err := range map[string]error{
				"signed by unknown authority":            put("n1:1", trust(stranger), pipelined),
				"certificate is valid for n1, not other": put("other:1", trust(authority), pipelined),
				"":                                       put("n1:1", nil, pipelined), // Without TLS.
			} {
				require.ErrorIs(t, err, client.ErrNotDone)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorContains(t, err, why)
			}
			require.Len(t, n.came(), came+1)
		}
	})
}

// counted is a connection that the network counts.
type counted struct {
	net.Conn
	closed func()
}

func (c counted) Close() error {
	c.closed()
	return c.Conn.Close()
}
