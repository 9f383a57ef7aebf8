package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

// TestEmptiedNodeIsRefused: a node of a running cluster whose data directory was lost does not come back under its old name:
// it has forgotten its votes and what it acknowledged. It says so and ends, whichever it is, however often it is started,
// also when the others have started anew since. The cluster goes on without it.
func TestEmptiedNodeIsRefused(t *testing.T) {
	names := []string{"n1", "n2", "n3"}
	var list, addresses, dirs []string
	for _, name := range names {
		addresses, dirs = append(addresses, freeAddress(t)), append(dirs, t.TempDir())
		list = append(list, name+"="+addresses[len(addresses)-1])
	}
	run := func(i int) *process {
		p := start(t, dirs[i], "--name", names[i], "--listen", addresses[i], "--initial-cluster", strings.Join(list, ","))
		p.listen = addresses[i]
		return p
	}
	kill := func(p *process) {
		require.NoError(t, p.cmd.Process.Kill())
		<-p.ended
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	put := func(p *process, value string) {
		_, err := p.api().Put(ctx, &kvdv1.PutRequest{Key: []byte("k"), Value: []byte(value)})
		require.NoError(t, err)
	}
	nodes := []*process{run(0), run(1), run(2)}
	for _, p := range nodes {
		p.state("READY=1")
	}
	put(nodes[0], "before")

	// n1 is the one that made the founding.
	for _, lost := range []int{1, 0} {
		t.Run(names[lost], func(t *testing.T) {
			others := []int{(lost + 1) % 3, (lost + 2) % 3}
			kill(nodes[lost])
			data, kept := filepath.Join(dirs[lost], "data"), filepath.Join(dirs[lost], "kept")
			require.NoError(t, os.Rename(data, kept))
			for attempt := range 3 {
				if attempt == 2 {
					for _, i := range others {
						kill(nodes[i])
					}
					for _, i := range others {
						nodes[i] = run(i)
					}
					for _, i := range others {
						nodes[i].state("READY=1")
					}
				}
				p := run(lost)
				require.Equal(t, 1, p.end())
				p.says("a node whose data directory was lost cannot come back under its old name")
				put(nodes[others[0]], fmt.Sprint(attempt))
				resp, err := nodes[others[1]].api().Get(ctx, &kvdv1.GetRequest{Key: []byte("k")})
				require.NoError(t, err)
				require.Equal(t, fmt.Sprint(attempt), string(resp.Value))
			}
			require.NoError(t, os.RemoveAll(data))
			require.NoError(t, os.Rename(kept, data))
			nodes[lost] = run(lost)
			nodes[lost].state("READY=1")
		})
	}
}

// TestLostStoreIsRefused: so is one that has kept its record and lost a store.
func TestLostStoreIsRefused(t *testing.T) {
	dir := t.TempDir()
	p := start(t, dir, "--name", "alone")
	p.state("READY=1")
	p.signal(syscall.SIGTERM)
	p.state("STOPPING=1")
	require.Equal(t, 0, p.end())
	for _, lost := range [][]string{{"log"}, {"state"}, {"log", "state"}} {
		kept := t.TempDir()
		for _, store := range lost {
			require.NoError(t, os.Rename(filepath.Join(dir, "data", store), filepath.Join(kept, store)))
		}
		p := start(t, dir, "--name", "alone")
		require.Equal(t, 1, p.end())
		p.says("it was lost, or its disk is not mounted")
		for _, store := range lost {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, "data", store)))
			require.NoError(t, os.Rename(filepath.Join(kept, store), filepath.Join(dir, "data", store)))
		}
	}
	start(t, dir, "--name", "alone").state("READY=1")
}
