package nemesis

// Bits are flipped in the files of one node at most, until it is known to be whole or was replaced: what it had synced
// may be lost, and of a shard with three replicas kvd survives one such. The node may refuse to start, or stop when it comes upon the
// damage, at any later time; or the bits were of no use. Only a wrong answer is none of these. A node that does not run any more
// is replaced as operators would: another joins under a new name, the cluster makes the replicas again when the old
// one counts as down, and it is removed.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/internal/wait"
	"github.com/kvdstore/kvd/jepsen/cluster"
)

const (
	// flipsMost is how many bits are flipped at a time.
	flipsMost = 4
	// serveMax is how long a damaged node may take until it serves, else it is replaced; replaceMax bounds that.
	serveMax, replaceMax = 10 * time.Second, 90 * time.Second
)

// flip kills a node, flips bits in its files, and starts it.
func flip(ctx context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	n.mu.Lock()
	m := n.damaged
	if m == nil {
		running := n.running(rng)
		if len(running) == 0 {
			n.mu.Unlock()
			return nil, errNobody
		}
		m = n.Cluster.Node(running[0])
		n.damaged = m
	}
	n.mu.Unlock()
	m.MayEnd(true)
	m.Kill()
	where, err := flipBits(m.DataDir(), 1+rng.IntN(flipsMost), rng)
	if err = errors.Join(err, m.Start()); err != nil {
		return nil, err
	}
	return &act{nodes: []string{m.Name()}, details: map[string]any{"bits": where}, undo: func(ctx context.Context) error { return n.inspect(ctx) }}, nil
}

// flipBits flips bits in the files of a directory, each in a file by its size, and tells where.
func flipBits(dir string, bits int, rng *rand.Rand) (where []string, err error) {
	type file struct {
		name string
		size int64
	}
	var files []file
	var total int64
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == "LOCK" || d.Name() == "BALLAST" {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() > 0 {
			files = append(files, file{name, info.Size()})
			total += info.Size()
		}
		return err
	})
	if err != nil || total == 0 {
		return nil, errors.Join(err, fmt.Errorf("flip bits in %s: %w", dir, errNobody))
	}
	for range bits {
		f := files[rng.IntN(len(files))] // One time in two any file, else by its size.
		if rng.IntN(2) == 0 {
			at := rng.Int64N(total)
			for _, f = range files {
				if at -= f.size; at < 0 {
					break
				}
			}
		}
		at, bit := rng.Int64N(f.size), rng.IntN(8)
		if err := flipBit(f.name, at, bit); err != nil {
			return where, err
		}
		name, _ := filepath.Rel(dir, f.name)
		where = append(where, fmt.Sprintf("%s:%d.%d", name, at, bit))
	}
	return where, nil
}

func flipBit(name string, at int64, bit int) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	b[0] ^= 1 << bit
	if err == nil {
		_, err = f.WriteAt(b, at)
	}
	return errors.Join(err, f.Close())
}

// inspect replaces the node with flipped bits if it does not serve.
func (n *Nemesis) inspect(ctx context.Context) error {
	n.mu.Lock()
	m := n.damaged
	n.mu.Unlock()
	if m == nil || m.Gone() {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, serveMax)
	defer cancel()
	if m.AwaitReady(limited) == nil {
		return nil
	}
	return n.replace(ctx, m)
}

// replace puts another node in the place of one that is lost.
func (n *Nemesis) replace(ctx context.Context, m *cluster.Node) error {
	m.Leave()
	other, err := n.Cluster.Join()
	if err != nil {
		return err
	}
	value := map[string]any{"phase": "once", "by": other.Name()}
	n.record("replace", []string{m.Name()}, value)
	ctx, cancel := context.WithTimeout(ctx, replaceMax)
	defer cancel()
	id := n.view.id(m.Name())
	for {
		asking, stop := context.WithTimeout(ctx, askMax)
		_, err = n.Operator.RemoveNode(asking, &kvdv1.RemoveNodeRequest{Node: id})
		stop()
		if known, there := n.listed(ctx, id); known && !there {
			n.mu.Lock()
			n.damaged = nil
			n.mu.Unlock()
			return nil
		}
		if wait.For(ctx, lookEvery) != nil {
			return fmt.Errorf("%s, whose files were damaged, could not be replaced within %v: %w", m.Name(), replaceMax, err)
		}
	}
}
