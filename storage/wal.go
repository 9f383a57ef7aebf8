package storage

// A bit that flips in Pebble's write-ahead log must not take away what was synced. Where a chunk of the newest
// log does not check, Pebble takes it for the torn end that a crash leaves, unless a chunk in one of the blocks of 32 KiB
// after it says otherwise. It does not look at the rest of the same block, and the offsets by which its chunks speak fall
// behind with every block, as they leave out what is written as a whole block. So a flip takes what was synced after it,
// without a word.
//
// Here every batch ends with a mark, which only the log holds: its own number, and that of the last batch which was known
// to be durable when it was made. Before Pebble opens a store, its newest log is walked. At the first chunk that does not
// check, the whole chunks behind it are asked for their marks. The log is damaged if one knows of a durable batch that
// does not stand before that place; else that place is where the log ended.
//
//	chunk: checksum 4 | length 2 | encoding 1 | log number 4 | synced offset 8 | payload
//
// (The format walSync of pebble/v2/record. No chunk crosses the end of a block; a rest too short for a header is zeros.)
//
// Nothing stands behind the last batch, so the last synced one of a process that was killed has no witness. A process
// that stops puts one there: see seal.

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// markMagic begins a mark; its two numbers follow, big-endian.
const (
	markMagic = "kvd mark"
	markBytes = len(markMagic) + 8 + 8
)

// addMark ends a batch with its mark: its number, or 0 for one that only makes others durable, and that of the last batch
// that is durable. Numbers rise in the order of the log.
func addMark(b *pebble.Batch, own, durable uint64) error {
	var mark [markBytes]byte
	copy(mark[:], markMagic)
	binary.BigEndian.PutUint64(mark[len(markMagic):], own)
	binary.BigEndian.PutUint64(mark[len(markMagic)+8:], durable)
	return b.LogData(mark[:], nil)
}

// syncLog makes everything durable that was committed. Its mark stands behind what was durable before.
func syncLog(db *pebble.DB, durable uint64) error {
	b := newBatch(db)
	return errors.Join(addMark(b, 0, durable), b.Commit(pebble.Sync), b.Close())
}

// seal makes everything durable up to the last batch, and puts a mark behind it that says so.
func seal(db *pebble.DB, last uint64) error {
	return errors.Join(syncLog(db, 0), syncLog(db, last))
}

// checkNewestLog looks for damage in the newest log of a store. Of older ones Pebble wants a clean end.
func checkNewestLog(fs vfs.FS, dir string) error {
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	newest, file := uint64(0), ""
	for _, name := range names {
		stem, ok := strings.CutSuffix(name, ".log")
		if number, err := strconv.ParseUint(stem, 10, 64); ok && err == nil && number >= newest {
			newest, file = number, name
		}
	}
	if file == "" {
		return nil
	}
	f, err := fs.Open(fs.PathJoin(dir, file), vfs.SequentialReadsOption)
	if err != nil {
		return err
	}
	if err := errors.Join(checkLog(f, uint32(newest)), f.Close()); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

const (
	walBlockBytes = 32 << 10
	// walOldHeaderBytes is the header of a chunk without a synced offset; the trailer is one.
	walOldHeaderBytes = 4 + 2 + 1 + 4
	walHeaderBytes    = walOldHeaderBytes + 8
	// Encodings of chunks: the first without a synced offset, the first and the last with one, and the trailer's. Those with
	// one are, in their order: a whole batch, and the first, a middle and the last part of one.
	walOldFirst, walSyncFirst, walSyncLast, walTrailer = 5, 9, 12, 5
	walSyncMiddle                                      = 11
)

var walTable = crc32.MakeTable(crc32.Castagnoli)

// checkLog walks a log.
func checkLog(r io.Reader, number uint32) error {
	w := walk{number: number, bad: -1}
	block := make([]byte, walBlockBytes)
	for !w.over {
		n, err := io.ReadFull(r, block)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return err
		}
		if n == 0 {
			return nil
		}
		if err := w.block(block[:n]); err != nil {
			return err
		}
		w.start += int64(n)
	}
	return nil
}

// walk is the walk through one log.
type walk struct {
	number uint32
	start  int64 // Of the block.
	bad    int64 // The first place where no chunk checks, or -1.
	over   bool  // The log has ended, or is of another format.
	// before is the number of the last batch that stands before bad, and after that of the first behind it; 0 for none.
	before, after uint64
	// end is the end of the batch so far: a mark may lie in two blocks.
	end []byte
}

func (w *walk) block(b []byte) error {
	at := 0
	for w.bad < 0 {
		if rest := b[at:]; len(rest) < walHeaderBytes && len(bytes.Trim(rest, "\x00")) == 0 {
			return nil
		}
		if w.ends(b, at) {
			w.over = true
			return nil
		}
		payload, ok := w.chunk(b[at:])
		if !ok {
			w.bad = w.start + int64(at)
			break
		}
		if own, _, ok := readMark(w.join(b[at+6], payload)); ok {
			w.before = max(w.before, own)
		}
		at += walHeaderBytes + len(payload)
	}
	for ; at+walHeaderBytes <= len(b); at++ {
		if payload, ok := w.chunk(b[at:]); ok && !w.ask(payload) {
			return fmt.Errorf("%w: no chunk of the log checks at byte %d, and one at byte %d knows that it was durable",
				ErrDamaged, w.bad, w.start+int64(at))
		}
	}
	return nil
}

// join gives the end of a batch up to a chunk.
func (w *walk) join(encoding byte, payload []byte) []byte {
	if encoding < walSyncMiddle {
		w.end = w.end[:0]
	}
	w.end = append(w.end, payload[max(0, len(payload)-markBytes):]...)
	w.end = append(w.end[:0], w.end[max(0, len(w.end)-markBytes):]...)
	return w.end
}

// ask asks a chunk behind the bad place whether the log may have ended there.
func (w *walk) ask(payload []byte) bool {
	own, durable, ok := readMark(payload)
	if !ok {
		return true
	}
	if w.before != 0 && durable > w.before || w.after != 0 && durable >= w.after {
		return false
	}
	if w.after == 0 {
		w.after = own
	}
	return true
}

// readMark reads the mark of a batch from its last chunk.
func readMark(payload []byte) (own, durable uint64, ok bool) {
	if len(payload) < markBytes {
		return 0, 0, false
	}
	mark := payload[len(payload)-markBytes:]
	numbers, ok := bytes.CutPrefix(mark, []byte(markMagic))
	if !ok {
		return 0, 0, false
	}
	return binary.BigEndian.Uint64(numbers), binary.BigEndian.Uint64(numbers[8:]), true
}

// ends reports whether a log ends here as it should: by its trailer. A log of an older format is left to Pebble.
func (w *walk) ends(b []byte, at int) bool {
	if b = b[at:]; len(b) < walOldHeaderBytes {
		return false
	}
	sum, size, encoding, number := binary.LittleEndian.Uint32(b), int(binary.LittleEndian.Uint16(b[4:])), b[6], binary.LittleEndian.Uint32(b[7:])
	if encoding == walTrailer && sum == 0 && size == 0 && number == w.number+1 {
		return true
	}
	size += walOldHeaderBytes
	return w.start == 0 && at == 0 && encoding >= walOldFirst && encoding < walSyncFirst && size <= len(b) && sum == walSum(b[6:size])
}

// chunk reads the payload of the chunk that b begins with.
func (w *walk) chunk(b []byte) (payload []byte, ok bool) {
	if len(b) < walHeaderBytes || b[6] < walSyncFirst || b[6] > walSyncLast || binary.LittleEndian.Uint32(b[7:]) != w.number {
		return nil, false
	}
	end := walHeaderBytes + int(binary.LittleEndian.Uint16(b[4:]))
	if end > len(b) || walSum(b[6:end]) != binary.LittleEndian.Uint32(b) {
		return nil, false
	}
	return b[walHeaderBytes:end], true
}

func walSum(b []byte) uint32 {
	sum := crc32.Checksum(b, walTable)
	return (sum>>15 | sum<<17) + 0xa282ead8
}
