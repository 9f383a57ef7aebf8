// Package snapshot turns a replica's data into a stream of checked chunks and back.
//
//	header (by the sender: the state) ── data ── data ── … ── trailer
//
// Each chunk has a checksum of its own, and the trailer one over all of them, with the counts, so that a chunk that is
// missing, repeated or out of order is found. What is received is gathered in an ingest, beside the store: a stream that
// breaks, or is refused, leaves nothing when the ingest is aborted, or the store is opened again.
//
// The meta group's snapshot has no data: it is its state. (Its descriptor spans the whole key space, and it holds no
// user keys.)
//
// Beside that it holds the other walks through a replica's data: its checksum, and the surveys for a split.
package snapshot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/snapshot/pairs"
	"github.com/kvdstore/kvd/storage"
)

// A chunk ends with the pair that reaches its size, and still fits in a message between nodes.
var _ [kv.MessageBytesMax - kv.SnapshotChunkBytes - kv.KeyBytesMax - kv.ValueBytesMax - 1<<10]struct{}

// Writer reads a view as chunks.
type Writer struct {
	it         storage.Iterator
	chunkBytes int
	keys       uint64
	bytes      uint64
	sum        *xxhash.Digest
	more       bool
	over       bool
	err        error // Of the reading; it stays.
}

// NewWriter begins to read a span of a view in chunks that end with the pair that reaches chunkBytes. The caller closes
// the writer before the view.
func NewWriter(view storage.View, span kv.Span, chunkBytes int) (*Writer, error) {
	if chunkBytes < 1 || chunkBytes > kv.SnapshotChunkBytes {
		return nil, &kv.InvalidError{Field: "chunkBytes", Bound: fmt.Sprintf("from 1 to %d, is %d", kv.SnapshotChunkBytes, chunkBytes)}
	}
	w := &Writer{chunkBytes: chunkBytes, sum: xxhash.New()}
	if view.State().GetMeta() != nil {
		return w, nil
	}
	it, err := view.Iter(span)
	if err != nil {
		return nil, fmt.Errorf("read the data of a snapshot: %w", err)
	}
	w.it, w.more = it, it.Next()
	return w, nil
}

// Next gives the next part: data, and after all data the trailer. ok is false after that. A part is the caller's.
func (w *Writer) Next() (part *kvdv1.SnapshotChunk, ok bool, err error) {
	if w.over || w.err != nil {
		return nil, false, w.err
	}
	if w.more {
		part = w.data()
	} else {
		part = w.trailer()
	}
	if w.err != nil {
		w.err = fmt.Errorf("read the data of a snapshot: %w", w.err)
		return nil, false, w.err
	}
	return part, true, nil
}

func (w *Writer) data() *kvdv1.SnapshotChunk {
	b := pairs.New(w.chunkBytes + w.chunkBytes/8)
	for w.more && len(b) < w.chunkBytes {
		rec, err := w.it.Record()
		if err != nil {
			w.err = err
			return nil
		}
		b = pairs.Append(b, w.it.Key(), rec)
		w.keys++
		w.bytes += uint64(len(w.it.Key()) + len(rec.Value))
		w.more = w.it.Next()
	}
	sum := xxhash.Sum64(b)
	addSum(w.sum, sum)
	return &kvdv1.SnapshotChunk{Part: &kvdv1.SnapshotChunk_Data{Data: &kvdv1.SnapshotData{Pairs: b, Checksum: sum}}}
}

// trailer ends the reading. An iterator that failed looks as if it had come to its end: only its Close tells.
func (w *Writer) trailer() *kvdv1.SnapshotChunk {
	w.err = w.Close()
	return &kvdv1.SnapshotChunk{Part: &kvdv1.SnapshotChunk_Trailer{Trailer: &kvdv1.SnapshotTrailer{
		Keys: w.keys, Bytes: w.bytes, Checksum: w.sum.Sum64(),
	}}}
}

// Close ends the reading.
func (w *Writer) Close() error {
	w.over = true
	if w.it == nil {
		return nil
	}
	it := w.it
	w.it = nil
	return it.Close()
}

func addSum(d *xxhash.Digest, sum uint64) {
	_, _ = d.Write(binary.BigEndian.AppendUint64(nil, sum))
}

// Receiver writes chunks into an ingest. After an error the ingest is to be aborted; every later call gives the error
// again. The ingest may be committed only when Finish gave none.
type Receiver struct {
	ingest storage.Ingest
	state  *kvdv1.ShardState
	keys   uint64
	bytes  uint64
	sum    *xxhash.Digest
	err    error
}

// NewReceiver begins to receive the data that belongs to a state.
func NewReceiver(ingest storage.Ingest, state *kvdv1.ShardState) *Receiver {
	return &Receiver{ingest: ingest, state: state, sum: xxhash.New()}
}

// errFinished tells of a call after Finish.
var errFinished = errors.New("the snapshot has ended")

// Data takes a chunk in. It fails with a *kv.InvalidError for a chunk that no sender wrote, and with the ingest's error.
func (r *Receiver) Data(d *kvdv1.SnapshotData) error {
	if r.err == nil {
		r.err = r.data(d)
	}
	return r.err
}

func (r *Receiver) data(d *kvdv1.SnapshotData) error {
	sum := xxhash.Sum64(d.GetPairs())
	switch {
	case r.state.GetMeta() != nil:
		return &kv.InvalidError{Field: "snapshot chunk", Bound: "none: the meta group has no data"}
	case sum != d.GetChecksum():
		return &kv.InvalidError{Field: "snapshot chunk", Bound: "with the checksum that it names"}
	}
	addSum(r.sum, sum)
	return pairs.Each(d.GetPairs(), r.pair)
}

// pair takes in one pair. More than the state counts is refused at once, so that a stream without an end fills no disk.
func (r *Receiver) pair(key []byte, rec kv.Record) error {
	if err := errors.Join(kv.CheckKey("key", key), kv.CheckValue("value", rec.Value)); err != nil {
		return err
	}
	r.keys++
	r.bytes += uint64(len(key) + len(rec.Value))
	if r.keys > r.state.GetKeys() || r.bytes > r.state.GetBytes() {
		return r.miscounted()
	}
	return r.ingest.Put(key, rec)
}

func (r *Receiver) miscounted() error {
	return &kv.InvalidError{Field: "snapshot", Bound: fmt.Sprintf("of the %d keys and %d bytes that its state counts, came with %d and %d",
		r.state.GetKeys(), r.state.GetBytes(), r.keys, r.bytes)}
}

// Finish checks that everything has come.
func (r *Receiver) Finish(t *kvdv1.SnapshotTrailer) error {
	if r.err != nil {
		return r.err
	}
	r.err = errFinished
	var err error
	switch {
	case t.GetChecksum() != r.sum.Sum64():
		err = &kv.InvalidError{Field: "snapshot", Bound: "with all chunks in their order: the checksum over them differs"}
	case t.GetKeys() != r.keys || t.GetBytes() != r.bytes:
		err = &kv.InvalidError{Field: "snapshot", Bound: fmt.Sprintf("of %d keys and %d bytes, came with %d and %d", t.GetKeys(), t.GetBytes(), r.keys, r.bytes)}
	case r.state.GetKeys() != r.keys || r.state.GetBytes() != r.bytes:
		err = r.miscounted()
	}
	if err != nil {
		r.err = err
	}
	return err
}

// Checksum is a checksum over the keys and records of a span: the same on every replica with the same data. It ends with
// the context's error soon after the context has ended.
func Checksum(ctx context.Context, r storage.Reader, span kv.Span) (sum uint64, err error) {
	it, err := r.Iter(span)
	if err != nil {
		return 0, fmt.Errorf("read the data of a checksum: %w", err)
	}
	h := xxhash.New()
	var b []byte
	for it.Next() {
		rec, err := it.Record()
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return 0, fmt.Errorf("read the data of a checksum: %w", errors.Join(err, it.Close()))
		}
		b = pairs.Append(b[:0], it.Key(), rec)
		_, _ = h.Write(b)
	}
	if err := it.Close(); err != nil {
		return 0, fmt.Errorf("read the data of a checksum: %w", err)
	}
	return h.Sum64(), nil
}
