package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
)

// NodeName is the DNS name that a node's certificate carries beside its own: only who has such a certificate, signed
// by the CA, may call the service between nodes.
const NodeName = "kvd-node"

// reloadInterval is how often the files of the certificates are looked at.
const reloadInterval = 10 * time.Second

// Certificates are read from files, and again when these change.
type Certificates struct {
	cert, key, ca string
	now           atomic.Pointer[loaded]
}

type loaded struct {
	certificate tls.Certificate
	pool        *x509.CertPool
	files       [3]stamp
}

// stamp tells one state of a file from another.
type stamp struct {
	modified time.Time
	size     int64
}

// LoadCertificates reads the files.
func LoadCertificates(cert, key, ca string) (*Certificates, error) {
	if cert == "" || key == "" || ca == "" {
		return nil, errors.New("tls-cert, tls-key, tls-ca: all three, or none of them")
	}
	c := &Certificates{cert: cert, key: key, ca: ca}
	return c, c.Reload()
}

// Reload reads the files again; after an error the old certificates stay.
func (c *Certificates) Reload() error {
	files := c.stamps() // Before the files are read: a change meanwhile is noticed.
	certificate, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("tls-cert, tls-key: %w", err)
	}
	if end := certificate.Leaf.NotAfter; time.Now().After(end) {
		return fmt.Errorf("tls-cert: %s expired at %v: nobody would accept it", c.cert, end.UTC())
	}
	pem, err := os.ReadFile(c.ca)
	if err != nil {
		return fmt.Errorf("tls-ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return fmt.Errorf("tls-ca: %s holds no certificate", c.ca)
	}
	c.now.Store(&loaded{certificate: certificate, pool: pool, files: files})
	return nil
}

// stamps are those of the files as they are now. A new file may be older than the one that it replaces.
func (c *Certificates) stamps() (list [3]stamp) {
	for i, path := range []string{c.cert, c.key, c.ca} {
		if info, err := os.Stat(path); err == nil {
			list[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return list
}

// changed reports whether the files are others than those that were read last.
func (c *Certificates) changed() bool { return c.stamps() != c.now.Load().files }

// Watch reads the files again when they change, until the context ends.
func (c *Certificates) Watch(ctx context.Context, logger *slog.Logger) {
	ticker := time.NewTicker(reloadInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if !c.changed() {
				continue
			}
			if err := c.Reload(); err != nil {
				logger.Error("the certificates have changed and cannot be read: the old ones stay", "error", err)
			} else {
				logger.Info("the certificates were read again")
			}
		}
	}
}

// Server is for the node's own server.
func (c *Certificates) Server() credentials.TransportCredentials {
	return credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			now := c.now.Load()
			return &tls.Config{
				MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{now.certificate}, NextProtos: []string{"h2"},
				ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: now.pool,
			}, nil
		},
	})
}

// Client is for connections to other nodes: the other side must have a certificate for the address that is called, and
// one of a node, signed by the CA as it is now.
func (c *Certificates) Client() credentials.TransportCredentials {
	return nodeCredentials{credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12}), c}
}

// nodeCredentials are TLS with the certificates of the moment of each handshake. The check is crypto/tls's own: in
// VerifyConnection the name would be missing where an IP address was called.
type nodeCredentials struct {
	credentials.TransportCredentials
	certs *Certificates
}

// ClientHandshake connects to a node.
func (n nodeCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	now := n.certs.now.Load()
	return credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: now.pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &now.certificate, nil },
		VerifyConnection: func(s tls.ConnectionState) error {
			if !ofNode(s) {
				return errors.New("the other side is no node: its certificate lacks the DNS name " + NodeName)
			}
			return nil
		},
	}).ClientHandshake(ctx, authority, conn)
}

// Clone gives the same: nothing in it changes.
func (n nodeCredentials) Clone() credentials.TransportCredentials { return n }

// ofNode reports whether the other side's certificate, which was verified, is a node's.
func ofNode(s tls.ConnectionState) bool {
	return len(s.VerifiedChains) > 0 && slices.Contains(s.PeerCertificates[0].DNSNames, NodeName)
}

// open are the services that everybody may call who can connect. With TLS any other wants a certificate of a node: also
// one that somebody adds and forgets to think about.
var open = append([]string{
	healthv1.Health_ServiceDesc.ServiceName, reflectionv1.ServerReflection_ServiceDesc.ServiceName, reflectionv1alpha.ServerReflection_ServiceDesc.ServiceName,
}, ofClients...)

// authorizeNode refuses who is not a node.
func authorizeNode(ctx context.Context) error {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && ofNode(info.State) {
			return nil
		}
	}
	return status.Error(codes.Unauthenticated, "this service is for nodes: it wants a certificate of the CA with the DNS name "+NodeName)
}
