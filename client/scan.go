package client

// A scan goes through the shards in key order, one stream a node as long as that holds. Each chunk names the key to go on
// from: after a break, at any node, the next stream begins there. A chunk is given out whole before the next is taken, so
// no key is missed or given twice. A stream that ends without saying that it is complete has broken.

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/client/route"
	"github.com/kvdstore/kvd/kv"
)

// ScanOptions choose what a scan gives.
type ScanOptions struct {
	Span     kv.Span
	Limit    int // 0 is no limit.
	KeysOnly bool
	Level    []ReadOption
}

// Scan gives the keys of a span in order, over all shards. Each chunk of it shows one shard at one revision. After an
// error the iteration ends; breaks of connections are gone over, without missing or repeating a key. Without a deadline
// in the context it may last for ever, as long as a chunk comes every kv.RequestTimeout.
func (c *Client) Scan(ctx context.Context, o ScanOptions) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		if o.Span.Empty() {
			return
		}
		if o.Limit < 0 {
			yield(Item{}, notDone{&kv.InvalidError{Field: "limit", Bound: "at least 0"}})
			return
		}
		s := &scan{c: c, o: o, next: o.Span.Start, left: o.Limit, yield: yield}
		if err := s.run(ctx); err != nil {
			yield(Item{}, err)
		}
	}
}

// scan is one that is under way.
type scan struct {
	c     *Client
	o     ScanOptions
	yield func(Item, error) bool

	next []byte // Where to go on.
	left int    // Of the limit.
	done bool   // Nothing is left, or the caller wants no more.
}

func (s *scan) run(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return notDone{err}
	}
	s.c.refreshFirst()
	start, n, silences := rand.Int()&0xffff, 0, 0
	began := time.Now()
	for attempt := 0; ; attempt++ {
		at := s.next
		v := s.stream(ctx, s.c.target(placeOf(level(s.o.Level)), s.next, start+attempt), attemptMax<<silences)
		if s.done {
			return nil
		}
		if !bytes.Equal(at, s.next) { // It went on, so patience begins anew.
			n, silences, began = 0, 0, time.Now()
		}
		if v.err == nil {
			continue
		}
		if !v.again {
			return v.err
		}
		if v.silent {
			silences = min(silences+1, silencesMax)
		}
		if n++; v.redirect && n <= redirectsMax {
			continue
		}
		if end, ok := ctx.Deadline(); !ok && time.Since(began) > kv.RequestTimeout || !sleep(ctx, end, pause(n-1, v.after)) {
			return gaveUp(ctx, v.err, n)
		}
	}
}

var (
	errSilent  = errors.New("no answer in time")
	errEnded   = errors.New("the scan ended before it was complete")
	errNoSense = errors.New("the scan would go on from a key that it has passed")
)

// stream takes chunks from one node until the scan is complete or the stream breaks.
func (s *scan) stream(ctx context.Context, t route.Target, silence time.Duration) verdict {
	e, err := s.c.pool.acquire(t.Address)
	if err != nil {
		return verdict{err: notDone{err}}
	}
	defer e.release()
	streaming, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer quiet.Stop()
	marked := &wire.MarkedConn{Conn: e.conn()}
	rpc, err := kvdv1.NewKVClient(marked).Scan(streaming, &kvdv1.ScanRequest{
		Header: headerOf(t), Start: s.next, End: s.o.Span.End, Limit: uint64(s.left), KeysOnly: s.o.KeysOnly, Level: level(s.o.Level),
	})
	for err == nil {
		var chunk *kvdv1.ScanResponse
		if chunk, err = rpc.Recv(); err != nil {
			break
		}
		quiet.Stop() // The caller may take its time.
		s.c.answered(e)
		s.c.learn(t, chunk.GetHeader(), false)
		if err := s.take(chunk); s.done || err != nil {
			return verdict{err: err, again: true}
		}
		quiet.Reset(silence)
	}
	if errors.Is(err, io.EOF) {
		return verdict{err: notDone{&lostError{t.Address, errEnded}}, again: true}
	}
	v := s.c.judge(ctx.Err() != nil, wire.Read, t, e, marked.Sent(), err)
	if context.Cause(streaming) == errSilent {
		v = verdict{err: notDone{&lostError{t.Address, errSilent}}, again: ctx.Err() == nil, silent: true}
	}
	return v
}

// take gives out a chunk.
func (s *scan) take(chunk *kvdv1.ScanResponse) error {
	for _, x := range chunk.GetItems() {
		item := Item{Key: x.GetKey(), Record: kv.Record{Value: x.GetValue(), Revision: kv.Revision(x.GetRevision()), ExpireAt: x.GetExpireAtMs()}}
		if !s.yield(item, nil) {
			s.done = true
			return nil
		}
		if s.o.Limit > 0 {
			if s.left--; s.left == 0 {
				s.done = true
				return nil
			}
		}
	}
	resume := chunk.GetResume()
	switch {
	case len(resume) == 0:
		s.done = true
	case bytes.Compare(resume, s.next) <= 0:
		return notDone{errNoSense} // Another node may know better.
	default:
		s.next = resume
	}
	return nil
}
