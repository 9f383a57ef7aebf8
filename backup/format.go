package backup

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"

	"github.com/kvdstore/kvd/kv"
)

const (
	magic = "kvdbackup"
	// Version is that of the format.
	Version = 1
	// recordBytesMax bounds the payload of a record.
	recordBytesMax = kv.MessageBytesMax
	// recordHead and recordSum are the bytes of a record before and after its payload.
	recordHead = 5
	recordSum  = 8
)

// kind says what a record is.
type kind uint8

const (
	kindHeader kind = iota + 1
	kindPart
	kindPairs
	kindPartEnd
	kindTrailer
)

// damaged tells what is wrong with a file. The caller adds its name.
type damaged struct{ what string }

func (e *damaged) Error() string { return e.what }

func damagedf(format string, args ...any) error { return &damaged{fmt.Sprintf(format, args...)} }

// sums gathers checksums into one.
type sums struct{ *xxhash.Digest }

func newSums() sums { return sums{xxhash.New()} }

func (s sums) add(sum uint64) { _, _ = s.Write(binary.BigEndian.AppendUint64(nil, sum)) }

// records writes records.
type records struct {
	out io.Writer
	all sums
}

func (r *records) write(k kind, payload []byte) error {
	if len(payload) > recordBytesMax {
		return &kv.InvalidError{Field: "record", Bound: fmt.Sprintf("at most %d bytes, has %d", recordBytesMax, len(payload))}
	}
	head := binary.BigEndian.AppendUint32([]byte{byte(k)}, uint32(len(payload)))
	h := xxhash.New()
	_, _ = h.Write(head)
	_, _ = h.Write(payload)
	sum := h.Sum64()
	r.all.add(sum)
	for _, b := range [][]byte{head, payload, binary.BigEndian.AppendUint64(nil, sum)} {
		if _, err := r.out.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// scanner reads records.
type scanner struct {
	in  *bufio.Reader
	all sums
	// before is all without the last record.
	before uint64
}

// newScanner reads what a file begins with.
func newScanner(in io.Reader) (*scanner, error) {
	s := &scanner{in: bufio.NewReaderSize(in, 256<<10), all: newSums()}
	head := make([]byte, len(magic)+1)
	if _, err := io.ReadFull(s.in, head); err != nil || string(head[:len(magic)]) != magic {
		if err != nil && !ended(err) {
			return nil, err
		}
		return nil, damagedf("it does not begin like a file of a backup")
	}
	if v := head[len(magic)]; v != Version {
		return nil, damagedf("it is of version %d of the format, and this kvcli knows version %d", v, Version)
	}
	return s, nil
}

func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

var errCut = &damaged{"it ends before its trailer"}

// next reads a record. The payload is the caller's.
func (s *scanner) next() (kind, []byte, error) {
	head := make([]byte, recordHead)
	if _, err := io.ReadFull(s.in, head); err != nil {
		return 0, nil, cut(err)
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > recordBytesMax {
		return 0, nil, damagedf("a record claims to have %d bytes", size)
	}
	payload, err := readPayload(s.in, int(size))
	if err != nil {
		return 0, nil, cut(err)
	}
	stored := make([]byte, recordSum)
	if _, err := io.ReadFull(s.in, stored); err != nil {
		return 0, nil, cut(err)
	}
	h := xxhash.New()
	_, _ = h.Write(head)
	_, _ = h.Write(payload)
	sum := h.Sum64()
	if sum != binary.BigEndian.Uint64(stored) {
		return 0, nil, damagedf("the checksum of a record is wrong")
	}
	s.before = s.all.Sum64()
	s.all.add(sum)
	return kind(head[0]), payload, nil
}

// payloadStep is how much of a payload is made room for before any of it was seen.
const payloadStep = 1 << 20

// readPayload reads so many bytes, and makes no room for what does not come.
func readPayload(in io.Reader, size int) ([]byte, error) {
	payload := make([]byte, 0, min(size, payloadStep))
	for len(payload) < size {
		n := min(size-len(payload), payloadStep)
		payload = append(payload, make([]byte, n)...)
		if _, err := io.ReadFull(in, payload[len(payload)-n:]); err != nil {
			return nil, err
		}
	}
	return payload, nil
}

func cut(err error) error {
	if ended(err) {
		return errCut
	}
	return err
}

// end checks that nothing follows.
func (s *scanner) end() error {
	if _, err := s.in.ReadByte(); !errors.Is(err, io.EOF) {
		if err != nil {
			return err
		}
		return damagedf("something follows its trailer")
	}
	return nil
}
