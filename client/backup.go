package client

// A backup goes through the shards in key order, one stream a shard, from the node that leads it. What a stream gives is
// one shard as of one revision; when it breaks, that shard is begun again. Where it ends the next begins: when shards were
// split or merged meanwhile the next one is the one that holds that key now, and is read from there on. So every key of
// the span is in exactly one part.

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/cespare/xxhash/v2"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/client/route"
	"github.com/kvdstore/kvd/kv"
)

// backupSilence is for how long a node may give no chunk of a backup.
const backupSilence = 10 * time.Second

// BackupSink takes a backup: for each part Begin, then Pairs any number of times, then End; or after Begin or Pairs
// Abort, when the part is begun anew. An error ends the backup.
type BackupSink interface {
	// Begin begins the data of a span as of one revision. The shard's own span may reach further to the left.
	Begin(span kv.Span, shard *kvdv1.ShardInfo) error
	// Pairs takes pairs in key order, in the encoding of package snapshot/pairs, with their xxhash64. They are the sink's.
	Pairs(pairs []byte, checksum uint64) error
	// End tells how many keys there were, and the xxhash64 over the checksums of all Pairs.
	End(keys, checksum uint64) error
	// Abort drops what came since Begin.
	Abort() error
}

// Backup gives all data to a sink, shard by shard in key order, while the cluster serves. It needs the map: a client that
// keeps to its endpoints (Config.Only) is refused. The context's deadline bounds all of it; without one it may last for
// ever, as long as it goes on.
func (c *Client) Backup(ctx context.Context, sink BackupSink) error {
	if err := ctx.Err(); err != nil {
		return notDone{err}
	}
	if c.cfg.Only {
		return notDone{&kv.InvalidError{Field: "endpoints", Bound: "a client that uses the map: a backup is read from every shard's leader"}}
	}
	b := &backup{c: c, sink: sink}
	for !b.done {
		if err := b.part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// backup is one that is under way.
type backup struct {
	c    *Client
	sink BackupSink
	next []byte // The first key of what is left.
	done bool
}

// sinkError is one of the sink: nothing is tried again.
type sinkError struct{ error }

func (e sinkError) Unwrap() error { return e.error }

// part reads the shard that holds the first key of what is left, again until it has all of it.
func (b *backup) part(ctx context.Context) error {
	start, n := rand.Int()&0xffff, 0
	began := time.Now()
	for attempt := 0; ; attempt++ {
		v := b.attempt(ctx, start+attempt)
		if v.err == nil {
			return nil
		}
		if !v.again {
			return v.err
		}
		if n++; v.redirect && n <= redirectsMax {
			continue
		}
		if end, ok := ctx.Deadline(); !ok && time.Since(began) > backupPatience || !sleep(ctx, end, pause(n-1, v.after)) {
			return gaveUp(ctx, v.err, n)
		}
	}
}

// backupPatience is for how long a shard is tried when the context has no deadline.
const backupPatience = time.Minute

// errNoRoute tells that the map is not here yet.
var errNoRoute = errors.New("the shard map is not known yet")

func (b *backup) attempt(ctx context.Context, n int) verdict {
	t := b.c.target(atLeader, b.next, n)
	if t.Route.Version == 0 {
		if _, err := b.c.Map(ctx); err != nil {
			return verdict{err: err}
		}
		if t = b.c.target(atLeader, b.next, n); t.Route.Version == 0 {
			return verdict{err: notDone{errNoRoute}, again: true}
		}
	}
	begun := false
	v := b.stream(ctx, t, &begun)
	if sunk := (sinkError{}); errors.As(v.err, &sunk) {
		return verdict{err: sunk.error}
	}
	if v.err != nil && begun {
		if err := b.sink.Abort(); err != nil {
			return verdict{err: err}
		}
	}
	return v
}

// stream reads a shard from the node that leads it.
func (b *backup) stream(ctx context.Context, t route.Target, begun *bool) verdict {
	e, err := b.c.pool.acquire(t.Address)
	if err != nil {
		return verdict{err: notDone{err}}
	}
	defer e.release()
	streaming, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(backupSilence, func() { cancel(errSilent) })
	defer quiet.Stop()
	marked := &wire.MarkedConn{Conn: e.conn()}
	rpc, err := kvdv1.NewAdminClient(marked).Backup(streaming, &kvdv1.BackupRequest{
		Shard: uint64(t.Route.Shard), Version: t.Route.Version, Start: b.next,
	})
	in := &backupStream{b: b, sum: xxhash.New()}
	for err == nil {
		var chunk *kvdv1.BackupChunk
		if chunk, err = rpc.Recv(); err != nil {
			break
		}
		quiet.Stop() // The sink may take its time.
		b.c.answered(e)
		failed := in.take(chunk, begun)
		if in.over || failed != nil {
			return verdict{err: failed, again: failed != nil}
		}
		quiet.Reset(backupSilence)
	}
	if errors.Is(err, io.EOF) {
		return verdict{err: notDone{&lostError{t.Address, errEnded}}, again: true}
	}
	v := b.c.judge(ctx.Err() != nil, wire.Read, t, e, marked.Sent(), err)
	if context.Cause(streaming) == errSilent {
		v = verdict{err: notDone{&lostError{t.Address, errSilent}}, again: ctx.Err() == nil, silent: true}
	}
	return v
}

// backupStream is what has come of one part.
type backupStream struct {
	b     *backup
	begun bool
	over  bool
	end   []byte // Of the part.
	sum   *xxhash.Digest
}

var errGarbled = errors.New("the backup of a shard came with a wrong checksum, or in the wrong order")

// take takes a chunk, and checks it.
func (s *backupStream) take(chunk *kvdv1.BackupChunk, begun *bool) error {
	switch {
	case chunk.GetShard() != nil:
		return s.begin(chunk.GetShard(), begun)
	case !s.begun:
		return notDone{errGarbled}
	case chunk.GetLast():
		if chunk.GetChecksum() != s.sum.Sum64() {
			return notDone{errGarbled}
		}
		if err := s.b.sink.End(chunk.GetKeys(), chunk.GetChecksum()); err != nil {
			return sinkError{err}
		}
		s.over = true
		s.b.next, s.b.done = s.end, len(s.end) == 0
		return nil
	case xxhash.Sum64(chunk.GetPairs()) != chunk.GetChecksum():
		return notDone{errGarbled}
	}
	_, _ = s.sum.Write(binary.BigEndian.AppendUint64(nil, chunk.GetChecksum()))
	if err := s.b.sink.Pairs(chunk.GetPairs(), chunk.GetChecksum()); err != nil {
		return sinkError{err}
	}
	return nil
}

func (s *backupStream) begin(info *kvdv1.ShardInfo, begun *bool) error {
	d := info.GetDescriptor_()
	span := kv.Span{Start: d.GetStart(), End: d.GetEnd()}
	if s.begun || !span.Contains(s.b.next) {
		return notDone{fmt.Errorf("shard %d: %w", d.GetShard(), errGarbled)}
	}
	span.Start = s.b.next
	s.begun, s.end, *begun = true, span.End, true
	if err := s.b.sink.Begin(span, info); err != nil {
		return sinkError{err}
	}
	return nil
}
