package node

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/storage"
)

// The disk of the data directory, beside the loop. While it is nearly full the node takes no writes: not of clients, not
// from other leaders, and no snapshots; and its leaderships go to nodes that have room. What was taken before must still
// be written, flushed and compacted: for that is the reserve, and when that is nearly gone the ballast, a file that only
// takes room. No write is taken for the ballast's room: they begin again when it can be made anew.
//
// A disk that takes writes and does not end them stops the turns too, when the state store can buffer no more. Then
// nobody counts ticks (Core.watchDisk), and it is seen here.

const (
	// diskInterval is short, because a fast disk fills quickly.
	diskInterval = 100 * time.Millisecond
	ballastBytes = 64 << 20
	// turnInterval is how often it is looked whether a turn has ended.
	turnInterval = 500 * time.Millisecond
)

// diskWatch is what is known of the file system of the data directory.
type diskWatch struct {
	full       atomic.Bool
	free, need atomic.Uint64
	looked     bool
}

// room reports whether so many more bytes leave the disk's reserve alone.
func (n *Node) room(bytes uint64) bool {
	return !n.disk.full.Load() && n.disk.free.Load() > n.disk.need.Load()+bytes
}

func (n *Node) noRoom() error {
	return &kv.DiskFullError{Node: n.ID(), FreeBytes: n.disk.free.Load(), NeedBytes: n.disk.need.Load()}
}

// watchDisk looks at the disk until the node ends.
func (n *Node) watchDisk(ctx context.Context) {
	ticker := time.NewTicker(diskInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := n.lookAtDisk(); err != nil {
				n.Logger.Warn("the disk cannot be watched", "error", err)
			}
		}
	}
}

func (n *Node) lookAtDisk() error {
	free, total, err := storage.DiskFree(n.DataDir)
	if err != nil {
		return err
	}
	return n.judgeDisk(free, total)
}

// judgeDisk decides whether writes are taken.
func (n *Node) judgeDisk(free, total uint64) error {
	released, err := storage.BallastReleased(n.DataDir)
	if err != nil {
		return err
	}
	// The reserve is bounded by a twentieth of the disk, so that small disks can be used.
	need := min(uint64(n.meta.Load().setting.Int(raftmeta.DiskReserve)), total/20)
	// A process that comes after one that released the ballast goes on from there.
	was := n.disk.full.Load() || released && !n.disk.looked
	n.disk.looked = true
	enough := need
	if was {
		enough = enoughAgain(need, released)
	}
	full := free < enough
	n.disk.free.Store(free)
	n.disk.need.Store(need)
	changed := full != n.disk.full.Swap(full)
	switch {
	case full && changed:
		n.Logger.Error("the disk is nearly full: writes are refused until there is room", "free", free, "need", need, "dir", n.DataDir)
	case changed:
		n.Logger.Info("the disk has room again: writes are taken", "free", free)
	}
	if full || changed {
		n.inbox.add(func(in *Input) { in.Disk = &Disk{Full: full, FreeBytes: free, NeedBytes: enough} })
	}
	return n.ballast(full, released, free, need)
}

// enoughAgain is what must be free before writes begin again: a little more than the reserve, and room for the ballast.
func enoughAgain(need uint64, released bool) uint64 {
	if released {
		return need + need/4 + ballastBytes
	}
	return need + need/4
}

// ballast releases the ballast, or makes it.
func (n *Node) ballast(full, released bool, free, need uint64) error {
	switch {
	case full && !released && free < need/4:
		had, err := storage.ReleaseBallast(n.DataDir)
		if had {
			n.Logger.Error("the ballast file was emptied to make room for what must be written", "dir", n.DataDir)
		}
		return err
	case !full && (released || free > need+2*ballastBytes):
		return storage.EnsureBallast(n.DataDir, ballastBytes)
	}
	return nil
}

// watchTurns stops the process when a turn does not end. It counts its own looks: a process that was stopped has not
// waited for its disk.
func (n *Node) watchTurns(ctx context.Context) {
	ticker := time.NewTicker(turnInterval)
	defer ticker.Stop()
	var turn uint64
	var waited time.Duration
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := n.turns.Load()
		if now != turn || now%2 == 0 {
			turn, waited = now, 0
			continue
		}
		waited += turnInterval
		if waited > n.meta.Load().setting.Duration(raftmeta.DiskStallExit) {
			n.fatal(fmt.Errorf("a turn of the event loop has not ended for %v: the disk of the data directory is stuck; mend or replace it and start kvd again", waited))
			return
		}
	}
}
