// Package snapshot turns a replica's data into a stream of checked chunks and back.
//
//	header (by the sender: the state) ── data ── data ── … ── trailer
//
// Each chunk has a checksum of its own, and the trailer one over all of them, with the counts, so that a chunk that is
// missing, repeated or out of order is found.
package snapshot

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/storage"
)

// format is the first byte of a chunk's pairs.
const format = 1

// Writer reads a view as chunks.
type Writer struct {
	it         storage.Iterator
	chunkBytes int
	keys       uint64
	bytes      uint64
	sum        *xxhash.Digest
	more       bool
	over       bool
}

// NewWriter begins to read a span of a view in chunks of about chunkBytes. The caller closes the writer before the view.
func NewWriter(view storage.Reader, span kv.Span, chunkBytes int) (*Writer, error) {
	it, err := view.Iter(span)
	if err != nil {
		return nil, fmt.Errorf("read the data of a snapshot: %w", err)
	}
	return &Writer{it: it, chunkBytes: chunkBytes, sum: xxhash.New(), more: it.Next()}, nil
}

// Next gives the next part: data, and after all data the trailer. ok is false after that.
func (w *Writer) Next() (part *kvdv1.SnapshotChunk, ok bool, err error) {
	if w.over {
		return nil, false, nil
	}
	if !w.more {
		w.over = true
		if err := w.it.Close(); err != nil {
			return nil, false, fmt.Errorf("read the data of a snapshot: %w", err)
		}
		w.it = nil
		return &kvdv1.SnapshotChunk{Part: &kvdv1.SnapshotChunk_Trailer{Trailer: &kvdv1.SnapshotTrailer{
			Keys: w.keys, Bytes: w.bytes, Checksum: w.sum.Sum64(),
		}}}, true, nil
	}
	pairs := make([]byte, 1, w.chunkBytes+w.chunkBytes/8)
	pairs[0] = format
	for w.more && len(pairs) < w.chunkBytes {
		rec, err := w.it.Record()
		if err != nil {
			return nil, false, fmt.Errorf("read the data of a snapshot: %w", err)
		}
		key := w.it.Key()
		pairs = binary.AppendUvarint(pairs, uint64(len(key)))
		pairs = append(pairs, key...)
		pairs = appendRecord(pairs, rec)
		w.keys++
		w.bytes += uint64(len(key) + len(rec.Value))
		w.more = w.it.Next()
	}
	sum := xxhash.Sum64(pairs)
	addSum(w.sum, sum)
	return &kvdv1.SnapshotChunk{Part: &kvdv1.SnapshotChunk_Data{Data: &kvdv1.SnapshotData{Pairs: pairs, Checksum: sum}}}, true, nil
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

func appendRecord(b []byte, rec kv.Record) []byte {
	b = binary.AppendUvarint(b, uint64(rec.Revision))
	b = binary.AppendUvarint(b, uint64(rec.ExpireAt))
	b = binary.AppendUvarint(b, uint64(len(rec.Value)))
	return append(b, rec.Value...)
}

// Receiver writes chunks into an ingest. After an error the ingest is to be aborted.
type Receiver struct {
	ingest storage.Ingest
	state  *kvdv1.ShardState
	keys   uint64
	bytes  uint64
	sum    *xxhash.Digest
}

// NewReceiver begins to receive the data that belongs to a state.
func NewReceiver(ingest storage.Ingest, state *kvdv1.ShardState) *Receiver {
	return &Receiver{ingest: ingest, state: state, sum: xxhash.New()}
}

// Data takes a chunk in.
func (r *Receiver) Data(d *kvdv1.SnapshotData) error {
	pairs := d.GetPairs()
	sum := xxhash.Sum64(pairs)
	if sum != d.GetChecksum() {
		return &kv.InvalidError{Field: "snapshot chunk", Bound: "with the checksum that it names"}
	}
	if len(pairs) == 0 || pairs[0] != format {
		return &kv.InvalidError{Field: "snapshot chunk", Bound: fmt.Sprintf("of format %d", format)}
	}
	addSum(r.sum, sum)
	for pairs = pairs[1:]; len(pairs) > 0; {
		key, rec, rest, ok := decodePair(pairs)
		if !ok || len(key) == 0 || len(key) > kv.KeyBytesMax || len(rec.Value) > kv.ValueBytesMax {
			return &kv.InvalidError{Field: "snapshot chunk", Bound: "of whole pairs within the bounds of keys and values"}
		}
		if err := r.ingest.Put(key, rec); err != nil {
			return err
		}
		r.keys++
		r.bytes += uint64(len(key) + len(rec.Value))
		pairs = rest
	}
	return nil
}

// Finish checks that everything has come.
func (r *Receiver) Finish(t *kvdv1.SnapshotTrailer) error {
	switch {
	case t.GetChecksum() != r.sum.Sum64():
		return &kv.InvalidError{Field: "snapshot", Bound: "with all chunks in their order: the checksum over them differs"}
	case t.GetKeys() != r.keys || t.GetBytes() != r.bytes:
		return &kv.InvalidError{Field: "snapshot", Bound: fmt.Sprintf("of %d keys and %d bytes, came with %d and %d", t.GetKeys(), t.GetBytes(), r.keys, r.bytes)}
	case r.state.GetKeys() != r.keys || r.state.GetBytes() != r.bytes:
		return &kv.InvalidError{Field: "snapshot", Bound: fmt.Sprintf("of the %d keys and %d bytes that its state counts, came with %d and %d", r.state.GetKeys(), r.state.GetBytes(), r.keys, r.bytes)}
	}
	return nil
}

// decodePair reads a pair; it is not copied.
func decodePair(b []byte) (key []byte, rec kv.Record, rest []byte, ok bool) {
	if key, b, ok = decodeBytes(b); !ok {
		return nil, rec, nil, false
	}
	revision, n := binary.Uvarint(b)
	if n <= 0 {
		return nil, rec, nil, false
	}
	b = b[n:]
	expire, n := binary.Uvarint(b)
	if n <= 0 || int64(expire) < 0 {
		return nil, rec, nil, false
	}
	rec = kv.Record{Revision: kv.Revision(revision), ExpireAt: int64(expire)}
	rec.Value, rest, ok = decodeBytes(b[n:])
	return key, rec, rest, ok
}

func decodeBytes(b []byte) (value, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, false
	}
	return b[n : n+int(size)], b[n+int(size):], true
}

// Checksum is a checksum over the keys and records of a span: the same on every replica with the same data.
func Checksum(r storage.Reader, span kv.Span) (sum uint64, err error) {
	it, err := r.Iter(span)
	if err != nil {
		return 0, err
	}
	h := xxhash.New()
	var b []byte
	for it.Next() {
		rec, err := it.Record()
		if err != nil {
			_ = it.Close()
			return 0, err
		}
		b = binary.AppendUvarint(b[:0], uint64(len(it.Key())))
		b = append(b, it.Key()...)
		_, _ = h.Write(appendRecord(b, rec))
	}
	return h.Sum64(), it.Close()
}
