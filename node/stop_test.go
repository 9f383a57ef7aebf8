package node

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/storage"
)

// nowhere is the network of a node that is alone.
type nowhere struct{ Network }

func (nowhere) Close() {}

func (nowhere) Follow([]kv.NodeID) {}

func startAlone(t *testing.T) *Node {
	n, err := Open(Config{
		Name: "n1", DataDir: t.TempDir(), Advertise: "127.0.0.1:1", Replicas: 1, MemoryBytes: 64 << 20,
		Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) },
		Network: func(*Node, Self) Network { return nowhere{} },
	})
	require.NoError(t, err)
	require.NoError(t, n.Start(t.Context()))
	return n
}

// endless is a view of more data than anybody can read.
type endless struct {
	storage.View
	begun, closed chan struct{}
}

func (e endless) Iter(kv.Span) (storage.Iterator, error) {
	close(e.begun)
	return always{}, nil
}

func (e endless) Close() error {
	close(e.closed)
	return nil
}

type always struct{}

func (always) Next() bool                 { return true }
func (always) Seek([]byte) bool           { return true }
func (always) Key() []byte                { return []byte("k") }
func (always) Record() (kv.Record, error) { return kv.Record{}, nil }
func (always) Close() error               { return nil }

// TestStopEndsChecksums: one that is being computed, and one that waits for it. Their views are closed before the store
// is, and neither is taken for a disk that failed.
func TestStopEndsChecksums(t *testing.T) {
	n := startAlone(t)
	work := [2]endless{}
	for i := range work {
		work[i] = endless{begun: make(chan struct{}), closed: make(chan struct{})}
		n.Checksum(&ChecksumWork{Shard: 1, View: work[i]})
	}
	select {
	case <-work[0].begun:
	case <-work[1].begun:
	}
	require.NoError(t, n.Stop(true))
	<-work[0].closed
	<-work[1].closed
}
