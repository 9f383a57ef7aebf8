package client_test

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

// kept is a sink that keeps what came; a chunk's pairs stand for one key each.
type kept struct {
	parts  []string // Span and keys of each complete part.
	open   []string
	aborts int
	fail   error // Of Pairs.
}

func (k *kept) Begin(span kv.Span, _ *kvdv1.ShardInfo) error {
	k.open = []string{span.String()}
	return nil
}

func (k *kept) Pairs(pairs []byte, _ uint64) error {
	k.open = append(k.open, string(pairs))
	return k.fail
}

func (k *kept) End(uint64, uint64) error {
	k.parts, k.open = append(k.parts, strings.Join(k.open, " ")), nil
	return nil
}

func (k *kept) Abort() error {
	k.open = nil
	k.aborts++
	return nil
}

// cut is a fake cluster of one node with shards that may change.
type cut struct {
	shards []*kvdv1.Descriptor
	keys   []string
	// before is called before each chunk; an error breaks the stream.
	before func(n int) error
	chunks int
}

func span(id, version uint64, start, end string) *kvdv1.Descriptor {
	return &kvdv1.Descriptor{
		Shard: id, Start: b(start), End: b(end), Epoch: &kvdv1.Epoch{Version: version, Config: 1}, Replicas: []*kvdv1.Replica{{Node: 1, Replica: id}}, Leader: 1,
	}
}

func (c *cut) know(version uint64) *kvdv1.MapResponse {
	return &kvdv1.MapResponse{Version: version, Descriptors: c.shards, Nodes: []*kvdv1.Node{{Node: 1, Address: "n1:1"}}}
}

func (c *cut) serve(r *kvdv1.BackupRequest, send func(*kvdv1.BackupChunk) error) error {
	stale := &kv.StaleEpochError{}
	for _, d := range c.shards {
		in := kv.Span{Start: d.Start, End: d.End}
		if in.Contains(r.GetStart()) {
			stale.Descriptors = append(stale.Descriptors, wire.ToDescriptor(d))
		}
		if d.Shard != r.GetShard() || d.GetEpoch().GetVersion() != r.GetVersion() || !in.Contains(r.GetStart()) {
			continue
		}
		return c.stream(d, string(r.GetStart()), send)
	}
	return refusal(wire.Read, stale)
}

func (c *cut) stream(d *kvdv1.Descriptor, start string, send func(*kvdv1.BackupChunk) error) error {
	if err := send(&kvdv1.BackupChunk{Shard: &kvdv1.ShardInfo{Descriptor_: d}}); err != nil {
		return err
	}
	all, n := xxhash.New(), uint64(0)
	for _, key := range c.keys {
		if key < start || key < string(d.Start) || len(d.End) > 0 && key >= string(d.End) {
			continue
		}
		chunk := &kvdv1.BackupChunk{Pairs: b(key), Checksum: xxhash.Sum64String(key)}
		c.chunks++
		if c.before != nil {
			if err := c.before(c.chunks); errors.Is(err, errFlip) {
				chunk.Checksum++
			} else if err != nil {
				return err
			}
		}
		_, _ = all.Write(binary.BigEndian.AppendUint64(nil, chunk.Checksum))
		n++
		if err := send(chunk); err != nil {
			return err
		}
	}
	return send(&kvdv1.BackupChunk{Last: true, Keys: n, Checksum: all.Sum64()})
}

var errFlip = errors.New("a bit flips on the way")

// TestBackup: every key is in exactly one part, whatever happens on the way.
func TestBackup(t *testing.T) {
	two := func() []*kvdv1.Descriptor { return []*kvdv1.Descriptor{span(1, 1, "", "m"), span(2, 1, "m", "")} }
	for name, c := range map[string]struct {
		// at is done before the given chunk.
		at   map[int]func(c *cut, n *fakeNode) error
		want []string
		abs  int
	}{
		"nothing happens": {nil, []string{"[, m) a c", "[m, ) p z"}, 0},
		"the stream breaks": {map[int]func(*cut, *fakeNode) error{
			2: func(*cut, *fakeNode) error { return status.Error(codes.Unavailable, "the connection broke") },
		}, []string{"[, m) a c", "[m, ) p z"}, 1},
		"a bit flips": {map[int]func(*cut, *fakeNode) error{4: func(*cut, *fakeNode) error { return errFlip }}, []string{"[, m) a c", "[m, ) p z"}, 1},
		"the next shard is split": {map[int]func(*cut, *fakeNode) error{2: func(c *cut, n *fakeNode) error {
			c.shards = []*kvdv1.Descriptor{span(1, 1, "", "m"), span(2, 2, "m", "s"), span(3, 2, "s", "")}
			n.know = c.know(2)
			return nil
		}}, []string{"[, m) a c", "[m, s) p", "[s, ) z"}, 0},
		"this shard is split": {map[int]func(*cut, *fakeNode) error{2: func(c *cut, n *fakeNode) error {
			c.shards = []*kvdv1.Descriptor{span(1, 2, "", "b"), span(3, 2, "b", "m"), span(2, 1, "m", "")}
			n.know = c.know(2)
			return status.Error(codes.Unavailable, "the connection broke")
		}}, []string{"[, b) a", "[b, m) c", "[m, ) p z"}, 1},
		"they are merged": {map[int]func(*cut, *fakeNode) error{2: func(c *cut, n *fakeNode) error {
			c.shards = []*kvdv1.Descriptor{span(1, 2, "", "")}
			n.know = c.know(2)
			return nil
		}}, []string{"[, m) a c", "[m, ) p z"}, 0},
		"the map is late": {map[int]func(*cut, *fakeNode) error{2: func(c *cut, n *fakeNode) error {
			c.shards = []*kvdv1.Descriptor{span(1, 1, "", "m"), span(2, 2, "m", "s"), span(3, 2, "s", "")}
			return nil
		}, 3: func(c *cut, n *fakeNode) error {
			time.AfterFunc(time.Second, func() {
				n.mu.Lock()
				defer n.mu.Unlock()
				n.know = c.know(2)
			})
			return nil
		}}, []string{"[, m) a c", "[m, s) p", "[s, ) z"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newNetwork(t)
				n := w.node("n1:1")
				defer w.stop()
				cluster := &cut{shards: two(), keys: []string{"a", "c", "p", "z"}}
				n.know, n.backup = cluster.know(1), cluster.serve
				cluster.before = func(i int) error {
					if f := c.at[i]; f != nil {
						n.mu.Lock()
						defer n.mu.Unlock()
						return f(cluster, n)
					}
					return nil
				}
				cl := w.connect(nil, "n1:1")
				sink := &kept{}
				require.NoError(t, cl.Backup(t.Context(), sink))
				require.Equal(t, c.want, sink.parts)
				require.Equal(t, c.abs, sink.aborts)
				require.NoError(t, cl.Close())
			})
		})
	}
}

// TestBackupEnds: at an error of the sink, which is not repeated, and after a minute without getting on.
func TestBackupEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		n := w.node("n1:1")
		defer w.stop()
		cluster := &cut{shards: []*kvdv1.Descriptor{span(1, 1, "", "")}, keys: []string{"a"}}
		n.know, n.backup = cluster.know(1), cluster.serve
		cl := w.connect(nil, "n1:1")
		full := errors.New("the disk is full")
		require.Equal(t, full, cl.Backup(t.Context(), &kept{fail: full}))
		require.Equal(t, 1, cluster.chunks)

		n.backup = func(*kvdv1.BackupRequest, func(*kvdv1.BackupChunk) error) error { return refusal(wire.Read, noLeader) }
		began := time.Now()
		err := cl.Backup(t.Context(), &kept{})
		require.ErrorIs(t, err, client.ErrNotDone)
		require.ErrorAs(t, err, new(*kv.NotLeaderError))
		require.Greater(t, time.Since(began), 30*time.Second)
		require.NoError(t, cl.Close())

		only := w.connect(func(c *client.Config) { c.Only = true }, "n1:1")
		require.ErrorAs(t, only.Backup(t.Context(), &kept{}), new(*kv.InvalidError))
		require.NoError(t, only.Close())
	})
}
