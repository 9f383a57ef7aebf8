package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/snapshot"
	"github.com/kvdstore/kvd/storage"
)

// loop runs the turns until the context ends.
func (n *Node) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var asserts asserts
	var yielding yielding
	for again := true; ; {
		if !again {
			timer.Reset(max(n.core.Deadline()-bootTime(), 0))
			select {
			case <-ctx.Done():
			case <-timer.C:
			case <-n.inbox.wake:
			}
		}
		if ctx.Err() != nil {
			return
		}
		began := bootTime()
		n.turns.Add(1)
		n.lag.begin(began, !again)
		n.yield(&yielding, began)
		in := n.inbox.take()
		in.Now = Now{Boot: bootTime(), Wall: wallTime()}
		again = n.core.Turn(in)
		n.lag.end(bootTime())
		n.turns.Add(1)
		if err := asserts.turned(n.core, in.Now.Boot); err != nil {
			n.fatal(fmt.Errorf("what must always hold does not: %w", err))
			return
		}
	}
}

// Lag is how long the turn under way has taken, or the one just before if that took longer; 0 while the loop waits for input.
func (n *Node) Lag() time.Duration { return n.lag.at(bootTime()) }

// logWriter writes log batches in their order; those that wait become one write with one sync.
type logWriter struct {
	mu    sync.Mutex
	queue []storage.LogWrite
	last  uint64
	sync  bool
	wake  chan struct{}
}

func (n *Node) writeLogs(ctx context.Context) {
	w := &n.logWriter
	var probe probe
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		w.mu.Lock()
		writes, last, sync := w.queue, w.last, w.sync
		w.queue, w.sync = nil, false
		w.mu.Unlock()
		if len(writes) == 0 {
			continue
		}
		probe.writes(writes)
		if err := n.log.Write(writes, sync); err != nil {
			n.fatal(err)
			return
		}
		if err := probe.wrote(n.log, writes, sync); err != nil {
			n.fatal(err)
			return
		}
		n.inbox.add(func(in *Input) { in.Written = last })
	}
}

// WriteLog queues a log batch.
func (n *Node) WriteLog(id uint64, writes []storage.LogWrite, sync bool) {
	w := &n.logWriter
	w.mu.Lock()
	w.queue, w.last, w.sync = append(w.queue, writes...), id, w.sync || sync
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Send sends Raft's messages to another node.
func (n *Node) Send(to kv.NodeID, messages []*kvdv1.RaftMessage) {
	if err := leaving(n.core, messages); err != nil {
		n.fatal(fmt.Errorf("what must always hold does not: %w", err))
		return
	}
	votes := probe{}.sends(n.self.Node, messages)
	n.network.Send(to, messages)
	probe{}.sent(votes)
}

// SyncState makes the state store durable, beside the loop.
func (n *Node) SyncState() {
	n.background(func(context.Context) {
		if _, err := n.state.Sync(); err != nil {
			n.fatal(err)
			return
		}
		probe{}.syncedState()
		n.inbox.add(func(in *Input) { in.StateSynced = true })
	})
}

// SendSnapshot sends a replica's data, beside the loop.
func (n *Node) SendSnapshot(s *Outgoing) {
	n.background(func(ctx context.Context) {
		err := n.sendSnapshot(ctx, s)
		n.inbox.add(func(in *Input) { in.Sent = append(in.Sent, SnapshotSent{Snapshot: s, Err: err}) })
	})
}

func (n *Node) sendSnapshot(ctx context.Context, s *Outgoing) (err error) {
	defer func() { err = errors.Join(err, s.View.Close()) }()
	w, err := snapshot.NewWriter(s.View, s.Span, kv.SnapshotChunkBytes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	next := paced(ctx, n.pace, func() int64 { return n.meta.Load().setting.Int(raftmeta.SnapshotRate) }, w.Next)
	return n.network.SendSnapshot(ctx, s.To.Node, &kvdv1.SnapshotHeader{Message: s.Message, State: s.State}, next)
}

// Snapshot receives a replica's data beside the store, and hands it to the loop.
func (n *Node) Snapshot(ctx context.Context, header *kvdv1.SnapshotHeader, next func() (*kvdv1.SnapshotChunk, error)) error {
	d := header.GetState().GetDescriptor_()
	if !n.room(header.GetState().GetBytes()) {
		return n.noRoom()
	}
	if err := n.expects(ctx, header); err != nil {
		return err
	}
	span := kv.Span{Start: d.GetStart(), End: d.GetEnd()}
	ingest, err := n.state.NewIngest(kv.ShardID(d.GetShard()), span)
	if err != nil {
		return err
	}
	r := snapshot.NewReceiver(ingest, header.State)
	for done := false; !done; {
		chunk, err := next()
		if err == nil && !n.room(0) {
			err = n.noRoom()
		}
		if err == nil {
			switch part := chunk.GetPart().(type) {
			case *kvdv1.SnapshotChunk_Data:
				err = r.Data(part.Data)
			case *kvdv1.SnapshotChunk_Trailer:
				done, err = true, r.Finish(part.Trailer)
			default:
				err = &kv.InvalidError{Field: "snapshot chunk", Bound: "data, or the trailer"}
			}
		}
		if err != nil {
			ingest.Abort()
			return err
		}
	}
	n.inbox.add(func(in *Input) {
		in.Received = append(in.Received, &Received{
			From: kv.NodeID(header.FromNode), Life: kv.Life(header.FromLife), State: header.State, Ingest: ingest,
			Message: SnapshotMessage(header.Message, header.State), Unled: header.Message.GetUnled(),
		})
	})
	return nil
}

// expects refuses, before its data has come, a snapshot that the loop would refuse now.
func (n *Node) expects(ctx context.Context, header *kvdv1.SnapshotHeader) error {
	var refusal error
	err := n.inLoop(ctx, func(c *Core) { refusal = c.expects(header) })
	return cmp.Or(err, refusal)
}

// Install commits what was received, beside the loop.
func (n *Node) Install(r *Received) {
	n.background(func(context.Context) {
		probe{}.installs(n.self.Node, n.state, r.State)
		if err := r.Ingest.Commit(r.State); err != nil {
			n.fatal(fmt.Errorf("install a snapshot: %w", err))
			return
		}
		probe{}.installed()
		n.Logger.Info("a snapshot was installed", "shard", r.State.GetDescriptor_().GetShard(), "keys", r.State.GetKeys(), "index", r.State.GetAppliedIndex())
		n.inbox.add(func(in *Input) { in.Installed = append(in.Installed, r) })
	})
}

// Survey walks through a view, one at a time, beside the loop. A stop ends it.
func (n *Node) Survey(s *SurveyWork) {
	n.background(func(ctx context.Context) {
		n.surveys.Lock()
		defer n.surveys.Unlock()
		found := s.Walk(ctx)
		if ctx.Err() != nil {
			return
		}
		n.inbox.add(func(in *Input) { in.Surveys = append(in.Surveys, found) })
	})
}

// Checksum computes a checksum, one at a time, beside the loop. A stop ends it.
func (n *Node) Checksum(c *ChecksumWork) {
	n.background(func(ctx context.Context) {
		n.checksums.Lock()
		defer n.checksums.Unlock()
		sum, err := snapshot.Checksum(ctx, c.View, c.Span)
		err = errors.Join(err, c.View.Close())
		if ctx.Err() != nil {
			return
		}
		n.inbox.add(func(in *Input) {
			in.Sums = append(in.Sums, Sum{Shard: c.Shard, ID: c.ID, Index: c.Index, Value: sum, Err: err})
		})
	})
}

// MetaChanged publishes newer metadata.
func (n *Node) MetaChanged(m *kvdv1.MetaState) { n.takeMeta(m) }

// Fatal stops the process.
func (n *Node) Fatal(err error) { n.fatal(err) }

// Envelope takes what a neighbour said.
func (n *Node) Envelope(e *kvdv1.Envelope) bool { return n.inbox.envelope(e) }

// Unreachable takes that messages to a node were lost.
func (n *Node) Unreachable(id kv.NodeID) {
	n.inbox.add(func(in *Input) {
		if len(in.Unreachable) < kv.FoundingNodesMax {
			in.Unreachable = append(in.Unreachable, id)
		}
	})
}

var _ Host = (*Node)(nil)
