package main

import (
	"context"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/storage"
)

func (p *process) admin() kvdv1.AdminClient {
	conn, err := grpc.NewClient(p.listen, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(p.t, err)
	p.t.Cleanup(func() { _ = conn.Close() })
	return kvdv1.NewAdminClient(conn)
}

// members are the names of the nodes that a node knows.
func (p *process) members(ctx context.Context) (names []string) {
	resp, err := p.admin().Nodes(ctx, &kvdv1.NodesRequest{})
	require.NoError(p.t, err)
	for _, n := range resp.Nodes {
		names = append(names, n.Node.Name)
	}
	return names
}

func (p *process) kill() {
	require.NoError(p.t, p.cmd.Process.Kill())
	<-p.ended
}

// record is what the file STORE of a node that does not run says.
func record(t *testing.T, dir string) *kvdv1.StoreRecord {
	r, _, err := storage.ReadStore(filepath.Join(dir, "data"))
	require.NoError(t, err)
	return r
}

// TestGrow: one node founds a cluster and says so; two more join it, each under the flags with which it starts ever after.
func TestGrow(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	first := start(t, t.TempDir(), "--name", "n1")
	first.says("a new cluster was founded, of this node alone")
	first.state("READY=1")
	dirs := []string{t.TempDir(), t.TempDir()}
	second := start(t, dirs[0], "--name", "n2", "--join", first.listen)
	second.state("READY=1")
	second.says("this node has joined a cluster")
	second.says("2 (n2) of cluster")
	third := start(t, dirs[1], "--name", "n3", "--join", second.listen+","+first.listen)
	third.state("READY=1")
	third.says("(3 nodes, 1 shard)")
	_, err := third.api().Put(ctx, &kvdv1.PutRequest{Key: []byte("k"), Value: []byte("v")})
	require.NoError(t, err)

	// It starts as what it is, with whatever flags.
	for _, flags := range []string{"--join=" + second.listen, "--join=127.0.0.1:1 --initial-cluster=x=127.0.0.1:1", ""} {
		third.kill()
		third = start(t, dirs[1], append([]string{"--name", "n3"}, strings.Fields(flags)...)...)
		third.state("READY=1")
		third.says("3 (n3) of cluster")
	}
	resp, err := third.api().Get(ctx, &kvdv1.GetRequest{Key: []byte("k")})
	require.NoError(t, err)
	require.Equal(t, "v", string(resp.Value))
	require.Equal(t, []string{"n1", "n2", "n3"}, third.members(ctx))

	// A disk that was lost does not come back under its name.
	second.kill()
	emptied := start(t, t.TempDir(), "--name", "n2", "--join", first.listen)
	require.Equal(t, 1, emptied.end())
	emptied.says("the cluster does not take this node: name: n2 is node 2, which has another data directory")

	// Who is removed ends, and does not start again.
	_, err = first.admin().RemoveNode(ctx, &kvdv1.RemoveNodeRequest{Node: 3})
	require.NoError(t, err)
	require.Equal(t, exitRemoved, third.end())
	third.says("this node was removed from the cluster")
	third = start(t, dirs[1], "--name", "n3", "--join", first.listen)
	require.Equal(t, exitRemoved, third.end())
	third.says("this node was removed from the cluster")
	require.Equal(t, []string{"n1", "n2"}, first.members(ctx))
}

// TestJoinWaits: with --join a node never founds a cluster. It waits and says for what, also when only it is named, or
// nobody is there; killed there, it is the same store when it starts again, and what it was started for stays.
func TestJoinWaits(t *testing.T) {
	dir, self, other := t.TempDir(), freeAddress(t), freeAddress(t)
	p := start(t, dir, "--name", "n2", "--listen", self, "--join", self)
	p.says("this node waits for a member of the cluster to let it in")
	p.says(self + ": is this node itself")
	p.kill()
	store := record(t, dir)
	require.Equal(t, kvdv1.StoreRecord_JOINING, store.Phase)

	p = start(t, dir, "--name", "n2", "--listen", self)
	require.Equal(t, 1, p.end())
	p.says("join: must be given")
	p = start(t, dir, "--name", "n2", "--listen", self, "--join", other, "--initial-cluster", "n2="+self)
	require.Equal(t, 1, p.end())
	p.says("join: not together with initial-cluster")

	p = start(t, dir, "--name", "n2", "--listen", self, "--join", self+","+other)
	p.says(other + ": dial")
	require.Equal(t, 503, p.get("/readyz"))
	founder := start(t, t.TempDir(), "--name", "n1", "--listen", other)
	founder.state("READY=1")
	p.state("READY=1")
	p.signal(syscall.SIGTERM)
	p.state("STOPPING=1")
	require.Equal(t, 0, p.end())
	joined := record(t, dir)
	require.Equal(t, store.StoreId, joined.StoreId)
	require.EqualValues(t, 2, joined.NodeId)
}

// TestJoinKilled (B2): a joiner is killed as soon as the cluster has it, wherever it is then. It starts as that node.
func TestJoinKilled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	founder := start(t, t.TempDir(), "--name", "n1")
	founder.state("READY=1")
	dir := t.TempDir()
	p := start(t, dir, "--name", "n2", "--join", founder.listen)
	require.Eventually(t, func() bool { return len(founder.members(ctx)) == 2 }, 30*time.Second, time.Millisecond)
	p.kill()
	t.Log("killed when it was ", record(t, dir).Phase)
	p = start(t, dir, "--name", "n2", "--join", founder.listen)
	p.state("READY=1")
	p.says("2 (n2) of cluster")
	require.Equal(t, []string{"n1", "n2"}, founder.members(ctx))
}
