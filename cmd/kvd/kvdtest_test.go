//go:build kvdtest

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/internal/faults"
)

// say replaces a file of the directory that a process is told its faults by.
func say(t *testing.T, dir, name, text string) {
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

// TestKilled: what was acknowledged is there after a kill, although that loses all that was not synced. Built with
// mutant_sync_skipped it is not there.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for life := range 3 {
		p := start(t, dir, "--name", "alone")
		p.state("READY=1")
		p.says("-kvdtest serves")
		api := p.api()
		for i := range 20 * life {
			resp, err := api.Get(ctx, &kvdv1.GetRequest{Key: fmt.Append(nil, i)})
			require.NoError(t, err)
			require.True(t, resp.Found, "key %d in life %d", i, life)
		}
		for i := range 20 {
			_, err := api.Put(ctx, &kvdv1.PutRequest{Key: fmt.Append(nil, 20*life+i), Value: []byte("v")})
			require.NoError(t, err)
		}
		p.signal(syscall.SIGKILL)
		<-p.ended
	}
}

// TestFaults: the wall clock steps, and the disk is full and then broken, as the files say.
func TestFaults(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(faults.Env, dir)
	p := start(t, dir, "--name", "alone")
	p.state("READY=1")
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	api := p.api()
	put := func() codes.Code {
		_, err := api.Put(ctx, &kvdv1.PutRequest{Key: []byte("k"), Value: []byte("v"), TtlMs: 3600_000})
		return status.Code(err)
	}
	there := func() bool {
		resp, err := api.Get(ctx, &kvdv1.GetRequest{Key: []byte("k")})
		return err == nil && resp.Found
	}
	until := func(f func() bool) { require.Eventually(t, f, 30*time.Second, 5*time.Millisecond) }
	require.Equal(t, codes.OK, put())
	require.True(t, there())
	say(t, dir, "clock", "2h")
	until(func() bool { return !there() })

	say(t, dir, "disk", `{"free": 1000000}`)
	until(func() bool { return put() == codes.ResourceExhausted })
	say(t, dir, "disk", "")
	until(func() bool { return put() == codes.OK })

	say(t, dir, "disk", `{"fail": true}`)
	until(func() bool { return put() != codes.OK })
	require.Equal(t, 2, p.end())
	p.says("the disk or its file system failed; mend it")
}

// TestStalledDisk: a write waits for a disk that is stuck, and is done when that goes on.
func TestStalledDisk(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(faults.Env, dir)
	p := start(t, dir, "--name", "alone")
	p.state("READY=1")
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	say(t, dir, "disk", `{"stall": true}`)
	until := func(f func() bool) { require.Eventually(t, f, 30*time.Second, time.Millisecond) }
	until(func() bool {
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		_, err := p.api().Put(short, &kvdv1.PutRequest{Key: []byte("k"), Value: []byte("v")})
		return err != nil
	})
	say(t, dir, "disk", "")
	_, err := p.api().Put(ctx, &kvdv1.PutRequest{Key: []byte("k"), Value: []byte("v")})
	require.NoError(t, err)
}

// TestLinks: a node is reached at the address that the other was told, not at that in the map.
func TestLinks(t *testing.T) {
	one, two, nowhere := freeAddress(t), freeAddress(t), freeAddress(t)
	list := fmt.Sprintf("n1=%s,n2=%s", one, nowhere)
	dir := t.TempDir()
	say(t, dir, "links", fmt.Sprintf("{%q: %q}", nowhere, two))
	t.Setenv(faults.Env, dir)
	p := start(t, t.TempDir(), "--name", "n1", "--initial-cluster", list, "--listen", one)
	q := start(t, t.TempDir(), "--name", "n2", "--initial-cluster", list, "--listen", two, "--advertise", nowhere)
	p.state("READY=1")
	q.state("READY=1")
}

// TestCrashPoints: the process ends as by kill -9 the how manieth time it comes to a point that it was told. A write whose log is
// durable then is there at the next start, and one that was not written yet is not.
func TestCrashPoints(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for point, there := range map[string]bool{faults.LogUnsynced: false, faults.LogSynced: true} {
		t.Run(point, func(t *testing.T) {
			dir, data := t.TempDir(), t.TempDir()
			t.Setenv(faults.Env, dir)
			p := start(t, data, "--name", "alone")
			p.state("READY=1")
			api := p.api()
			_, err := api.Put(ctx, &kvdv1.PutRequest{Key: []byte("before"), Value: []byte("v")})
			require.NoError(t, err)
			say(t, dir, "crash", point)
			// The point may have been looked for just before: then this one is done.
			var last []byte
			for i := 0; err == nil; i++ {
				last = fmt.Append(nil, i)
				_, err = api.Put(ctx, &kvdv1.PutRequest{Key: last, Value: []byte("v")})
			}
			<-p.ended
			say(t, dir, "crash", "")
			p = start(t, data, "--name", "alone")
			p.state("READY=1")
			resp, err := p.api().Get(ctx, &kvdv1.GetRequest{Key: last})
			require.NoError(t, err)
			require.Equal(t, there, resp.Found)
		})
	}
}
