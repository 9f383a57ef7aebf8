package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

var (
	damages    = flag.Int("damages", 1, "how many places of each file are damaged, in each way")
	damageSeed = flag.Uint64("damage-seed", 1, "where")
)

// TestDamagedDirectory: a bit of any file of a data directory is flipped, or its end is missing. A node that is alone starts
// with all that it held, or ends and says what is damaged and what to do; it never panics, and never shows anything else.
func TestDamagedDirectory(t *testing.T) {
	dir := t.TempDir()
	held := fillDirectory(t, dir)
	data := filepath.Join(dir, "data")
	r, refused := rand.New(rand.NewPCG(*damageSeed, 1)), 0
	require.NoError(t, filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		name, err := filepath.Rel(data, path)
		require.NoError(t, err)
		whole := []byte{}
		if !d.IsDir() && d.Name() != "BALLAST" {
			whole, err = os.ReadFile(path)
			require.NoError(t, err)
		}
		for range min(*damages, len(whole)) {
			flipped := bytes.Clone(whole)
			at := r.IntN(len(whole))
			flipped[at] ^= 1 << r.IntN(8)
			cut := r.IntN(len(whole))
			for what, b := range map[string][]byte{fmt.Sprintf("bit in byte %d of %d", at, len(whole)): flipped, fmt.Sprintf("cut at %d of %d", cut, len(whole)): whole[:cut]} {
				t.Run(name+" "+what, func(t *testing.T) {
					again := t.TempDir()
					require.NoError(t, os.CopyFS(filepath.Join(again, "data"), os.DirFS(data)))
					require.NoError(t, os.WriteFile(filepath.Join(again, "data", name), b, 0o600))
					if startDamaged(t, again, held) {
						refused++
					}
				})
			}
		}
		return nil
	}))
	require.Positive(t, refused)
}

// pair is a key with what it holds.
type pair struct{ key, value string }

// fillDirectory has two lives of a node, so that there are tables, files of values and logs, and gives what it holds.
func fillDirectory(t *testing.T, dir string) (held []pair) {
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	for life := range 2 {
		p := start(t, dir, "--name", "alone")
		p.state("READY=1")
		for i := range 60 {
			key, value := fmt.Sprintf("%d-%03d", life, i), fmt.Sprintf("%0*d", 100+1200*(i%2), i)
			_, err := p.api().Put(ctx, &kvdv1.PutRequest{Key: []byte(key), Value: []byte(value)})
			require.NoError(t, err)
			held = append(held, pair{key, value})
		}
		p.signal(syscall.SIGTERM)
		require.Equal(t, 0, p.end())
	}
	return held
}

// startDamaged starts a node on a damaged directory, and tells whether it refused to go on.
func startDamaged(t *testing.T, dir string, held []pair) (refused bool) {
	p := start(t, dir, "--name", "alone")
	ready := func() bool { return p.get("/readyz") == http.StatusOK }
	require.Eventually(t, func() bool { return p.over() || ready() }, 60*time.Second, 5*time.Millisecond)
	if !p.over() {
		shown, err := scanAll(t, p)
		require.LessOrEqual(t, len(shown), len(held))
		require.Equal(t, append([]pair(nil), held[:len(shown)]...), shown)
		if err == nil {
			require.Len(t, shown, len(held))
			p.signal(syscall.SIGTERM)
			require.Equal(t, 0, p.end())
			return false
		}
	}
	require.Contains(t, []int{1, 2}, p.end())
	p.mu.Lock()
	defer p.mu.Unlock()
	text := strings.Join(p.log, "\n")
	require.NotContains(t, text, "panic")
	require.NotContains(t, text, "goroutine ")
	require.Contains(t, text, filepath.Join(dir, "data"))
	require.Regexp(t, "set the data directory aside|set it aside", text)
	return true
}

// over tells whether the process has ended.
func (p *process) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// scanAll reads what a node holds until it says that this is all, or ends.
func scanAll(t *testing.T, p *process) (shown []pair, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	stream, err := p.api().Scan(ctx, &kvdv1.ScanRequest{})
	for err == nil {
		var chunk *kvdv1.ScanResponse
		if chunk, err = stream.Recv(); errors.Is(err, io.EOF) {
			return shown, nil
		}
		for _, item := range chunk.GetItems() {
			shown = append(shown, pair{string(item.Key), string(item.Value)})
		}
	}
	return shown, err
}

// TestDamagedMember: a member of a cluster whose store is damaged says so and ends. Another node that takes its place
// gets everything from the others.
func TestDamagedMember(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	first := start(t, t.TempDir(), "--name", "n1")
	first.state("READY=1")
	second := start(t, t.TempDir(), "--name", "n2", "--join", first.listen)
	dir := t.TempDir()
	third := start(t, dir, "--name", "n3", "--join", first.listen)
	second.state("READY=1")
	third.state("READY=1")
	var held []pair
	for i := range 60 {
		held = append(held, pair{fmt.Sprintf("%03d", i), fmt.Sprintf("%0*d", 100+1200*(i%2), i)})
		_, err := first.api().Put(ctx, &kvdv1.PutRequest{Key: []byte(held[i].key), Value: []byte(held[i].value)})
		require.NoError(t, err)
	}
	replicatedOn(t, first, 1, 2, 3)
	third.kill()
	manifests, err := filepath.Glob(filepath.Join(dir, "data", "state", "MANIFEST-??????"))
	require.NoError(t, err)
	require.NotEmpty(t, manifests)
	for _, path := range manifests {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.NoError(t, os.Truncate(path, info.Size()-1))
	}
	third = start(t, dir, "--name", "n3")
	require.Equal(t, 1, third.end())
	third.says("set the data directory aside")
	third.says("MANIFEST")

	fourth := start(t, t.TempDir(), "--name", "n4", "--join", first.listen)
	fourth.state("READY=1")
	_, err = first.admin().SetDraining(ctx, &kvdv1.SetDrainingRequest{Node: 3, Draining: true})
	require.NoError(t, err)
	replicatedOn(t, first, 1, 2, 4)
	require.Eventually(t, func() bool {
		_, err := first.admin().RemoveNode(ctx, &kvdv1.RemoveNodeRequest{Node: 3})
		return err == nil
	}, 60*time.Second, 50*time.Millisecond)
	require.Eventually(t, func() bool {
		_, err := first.admin().TransferLeader(ctx, &kvdv1.TransferLeaderRequest{Shard: 1, ToNode: 4})
		shown, failed := scanAll(t, fourth)
		if err != nil || failed != nil {
			return false
		}
		require.Equal(t, held, shown)
		resp, err := fourth.api().Get(ctx, &kvdv1.GetRequest{Key: []byte(held[0].key)})
		return err == nil && resp.Header.Node == 4
	}, 60*time.Second, 50*time.Millisecond)
}

// replicatedOn waits until these nodes have the voters of the one shard.
func replicatedOn(t *testing.T, p *process, nodes ...uint64) {
	require.Eventually(t, func() bool {
		resp, err := p.admin().Shards(t.Context(), &kvdv1.ShardsRequest{})
		if err != nil || len(resp.Shards) != 1 {
			return false
		}
		var on []uint64
		for _, r := range resp.Shards[0].Descriptor_.Replicas {
			if !r.Learner {
				on = append(on, r.Node)
			}
		}
		slices.Sort(on)
		return slices.Equal(on, nodes)
	}, 60*time.Second, 50*time.Millisecond)
}
