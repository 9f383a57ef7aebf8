package backup

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// Visitor is told what a backup holds while it is read; its functions may be nil. Keys and values are its own. An error
// ends the reading.
type Visitor struct {
	Header func(*kvdv1.BackupHeader) error
	Part   func(*kvdv1.BackupPart) error
	Pair   func(key []byte, rec kv.Record) error
}

// Read reads a backup and checks all of it. What is damaged or missing is told with the name of the file, as a
// *kv.InvalidError. A visitor that acts on what it sees must not rely on it before Read has ended: read twice.
func Read(path string, v Visitor) (Totals, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Totals{}, err
	}
	name := path
	if info.IsDir() {
		name = filepath.Join(path, manifest)
	}
	r := &reader{visitor: v, dir: filepath.Dir(name)}
	if !info.IsDir() {
		r.dir = ""
	}
	err = r.file(name, nil, nil)
	return r.totals, err
}

// reader reads the files of one backup.
type reader struct {
	visitor Visitor
	dir     string // Of the parts' files, if they have such.
	header  *kvdv1.BackupHeader
	totals  Totals
}

// file reads a file: the whole backup, or the one that holds a part of the manifest.
func (r *reader) file(name string, part *kvdv1.BackupPart, end *kvdv1.BackupPartEnd) error {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return &kv.InvalidError{Field: name, Bound: "there: the backup is not complete without it"}
	}
	if err != nil {
		return err
	}
	return errors.Join(named(name, r.read(f, part, end)), f.Close())
}

// named adds the name of a file to what is wrong with it.
func named(name string, err error) error {
	wrong := (*damaged)(nil)
	invalid := (*kv.InvalidError)(nil)
	switch {
	case errors.As(err, &wrong):
		return &kv.InvalidError{Field: name, Bound: "an undamaged file: " + wrong.what}
	case errors.As(err, &invalid) && invalid.Field == "pairs":
		return &kv.InvalidError{Field: name, Bound: "an undamaged file: it has what are no pairs"}
	}
	return err
}

// content is what one file has had so far.
type content struct {
	r     *reader
	s     *scanner
	only  *kvdv1.BackupPart // The manifest's part that the file is for, nil for a whole backup.
	ends  *kvdv1.BackupPartEnd
	part  *kvdv1.BackupPart // That is open.
	last  *kvdv1.BackupPart // That was closed last.
	count counter
	sum   sums
	Totals
}

// read reads a file to its end.
func (r *reader) read(in io.Reader, only *kvdv1.BackupPart, ends *kvdv1.BackupPartEnd) error {
	s, err := newScanner(in)
	if err != nil {
		return err
	}
	k, payload, err := s.next()
	if err != nil {
		return err
	}
	h := &kvdv1.BackupHeader{}
	if k != kindHeader || h.UnmarshalVT(payload) != nil {
		return damagedf("it has no header")
	}
	if err := r.takeHeader(h, only != nil); err != nil {
		return err
	}
	c := &content{r: r, s: s, only: only, ends: ends}
	for {
		k, payload, err := s.next()
		if err != nil {
			return err
		}
		if k == kindTrailer {
			return c.trailer(payload)
		}
		if err := c.record(k, payload); err != nil {
			return err
		}
	}
}

func (r *reader) takeHeader(h *kvdv1.BackupHeader, ofPart bool) error {
	if ofPart {
		if h.GetBackupId() != r.header.GetBackupId() {
			return damagedf("it belongs to another backup")
		}
		return nil
	}
	r.header = h
	if r.visitor.Header != nil {
		return r.visitor.Header(h)
	}
	return nil
}

func (c *content) record(k kind, payload []byte) error {
	switch k {
	case kindPart:
		return c.begin(payload)
	case kindPairs:
		if c.part == nil || c.part.GetFile() != "" {
			return damagedf("pairs come outside of a part")
		}
		c.sum.add(xxhash.Sum64(payload))
		return c.count.add(payload)
	case kindPartEnd:
		return c.end(payload)
	}
	return damagedf("a record is of the unknown kind %d", k)
}

func (c *content) begin(payload []byte) error {
	p := &kvdv1.BackupPart{}
	switch {
	case c.part != nil || p.UnmarshalVT(payload) != nil:
		return damagedf("a part begins where none may")
	case c.only != nil:
		if want := c.only; c.last != nil || p.GetFile() != "" || p.GetNumber() != want.GetNumber() || !bytes.Equal(p.GetStart(), want.GetStart()) ||
			!bytes.Equal(p.GetEnd(), want.GetEnd()) || p.GetRevision() != want.GetRevision() || p.GetShard() != want.GetShard() {
			return damagedf("it holds another part than %s says", manifest)
		}
	case p.GetNumber() != c.Parts+1 || !bytes.Equal(p.GetStart(), c.last.GetEnd()) || c.last != nil && len(c.last.GetEnd()) == 0:
		return damagedf("part %d does not follow the one before it", p.GetNumber())
	}
	if file := p.GetFile(); file != "" && (c.r.dir == "" || file != filepath.Base(file) || file == "." || file == "..") {
		return damagedf("part %d is in a file that cannot be: %q", p.GetNumber(), file)
	}
	c.part, c.sum = p, newSums()
	c.count = counter{span: kv.Span{Start: p.GetStart(), End: p.GetEnd()}, visit: c.r.visitor.Pair}
	if c.only == nil && c.r.visitor.Part != nil {
		return c.r.visitor.Part(p)
	}
	return nil
}

func (c *content) end(payload []byte) error {
	e := &kvdv1.BackupPartEnd{}
	if c.part == nil || e.UnmarshalVT(payload) != nil {
		return damagedf("a part ends where none may")
	}
	if file := c.part.GetFile(); file != "" {
		if err := c.r.file(filepath.Join(c.r.dir, file), c.part, e); err != nil {
			return err
		}
	} else if e.GetKeys() != c.count.keys || e.GetBytes() != c.count.bytes || e.GetChecksum() != c.sum.Sum64() {
		return damagedf("part %d has not what its end says", c.part.GetNumber())
	}
	if want := c.ends; want != nil && (e.GetKeys() != want.GetKeys() || e.GetBytes() != want.GetBytes() || e.GetChecksum() != want.GetChecksum()) {
		return damagedf("it holds not what %s says", manifest)
	}
	c.Parts, c.Keys, c.Bytes = c.Parts+1, c.Keys+e.GetKeys(), c.Bytes+e.GetBytes()
	c.part, c.last = nil, c.part
	return nil
}

// trailer ends a file.
func (c *content) trailer(payload []byte) error {
	t := &kvdv1.BackupTrailer{}
	switch {
	case c.part != nil || c.last == nil || t.UnmarshalVT(payload) != nil:
		return damagedf("its trailer comes too early")
	case t.GetChecksum() != c.s.before:
		return damagedf("a record is missing, or in the wrong place")
	case t.GetParts() != c.Parts || t.GetKeys() != c.Keys || t.GetBytes() != c.Bytes:
		return damagedf("it has not what its trailer says")
	case c.only == nil && len(c.last.GetEnd()) != 0:
		return damagedf("its parts end at %s, not at the end of the keys", kv.FormatKey(c.last.GetEnd()))
	}
	if c.only == nil {
		c.r.totals = c.Totals
	}
	return c.s.end()
}
