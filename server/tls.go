package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
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
	changed     time.Time
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
	certificate, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("tls-cert, tls-key: %w", err)
	}
	pem, err := os.ReadFile(c.ca)
	if err != nil {
		return fmt.Errorf("tls-ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return fmt.Errorf("tls-ca: %s holds no certificate", c.ca)
	}
	c.now.Store(&loaded{certificate: certificate, pool: pool, changed: c.newest()})
	return nil
}

// newest is the time of the last change of a file.
func (c *Certificates) newest() time.Time {
	var newest time.Time
	for _, path := range []string{c.cert, c.key, c.ca} {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
	}
	return newest
}

// Watch reads the files again when they change, until the context ends.
func (c *Certificates) Watch(ctx context.Context, logger *slog.Logger) {
	ticker := time.NewTicker(reloadInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if c.newest().Equal(c.now.Load().changed) {
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

// Client is for connections to other nodes. The other side's certificate is checked against the CA as it is now.
func (c *Certificates) Client() credentials.TransportCredentials {
	return credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS12,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &c.now.Load().certificate, nil
		},
		InsecureSkipVerify: true, // VerifyConnection does it, with the CA of the moment.
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errors.New("the other side has no certificate")
			}
			rest := x509.NewCertPool()
			for _, cert := range s.PeerCertificates[1:] {
				rest.AddCert(cert)
			}
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{
				Roots: c.now.Load().pool, Intermediates: rest, DNSName: s.ServerName,
			})
			return err
		},
	})
}

// nodeService is the prefix of the methods that only nodes may call.
var nodeService = "/" + kvdv1.NodeService_ServiceDesc.ServiceName + "/"

// authorize refuses calls between nodes from others. Without TLS everybody may call everything.
func authorize(ctx context.Context, method string, secure bool) error {
	if !secure || !strings.HasPrefix(method, nodeService) {
		return nil
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return status.Error(codes.Unauthenticated, "who calls is not known")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 || !slices.Contains(info.State.PeerCertificates[0].DNSNames, NodeName) {
		return status.Error(codes.Unauthenticated, "this service is for nodes: it wants a certificate of the CA with the DNS name "+NodeName)
	}
	return nil
}
