//go:build kvdtest

package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"sync"
	"syscall"
	"time"
)

// ill is what is wrong with a disk, as the file `disk` says.
type ill struct {
	// Slow is how long each write and each sync takes at least, as a duration.
	Slow string `json:"slow"`
	// Stall: no write, sync, creation, renaming or removal ends before this is false again.
	Stall bool `json:"stall"`
	// Fail: all of those fail with EIO.
	Fail bool `json:"fail"`
	// Full: nothing is free, and each write that makes a file longer, and each creation, fails with ENOSPC.
	Full bool `json:"full"`
	// Free is how many bytes are free when this is read; what is written takes of it, what is removed gives back. Left out
	// is what there really is.
	Free *int64 `json:"free"`

	slow time.Duration
}

func parseDisk(b []byte) (d ill, err error) {
	from := json.NewDecoder(bytes.NewReader(b))
	from.DisallowUnknownFields()
	if err = from.Decode(&d); err == nil && d.Slow != "" {
		d.slow, err = time.ParseDuration(d.Slow)
	}
	if err == nil && (d.slow < 0 || d.Free != nil && *d.Free < 0) {
		err = fmt.Errorf("slow and free: not negative")
	}
	return d, err
}

// disk has the faults of a disk, and what is free on it if that was said.
type disk struct {
	asked *told[ill]

	mu   sync.Mutex
	of   *ill // Whose Free the number below began with.
	left int64
}

// change waits until the disk does something that is to last, and tells how it fails.
func (d *disk) change(op, path string) error {
	now := d.asked.now()
	for ; now.Stall; now = d.asked.now() {
		time.Sleep(lookInterval)
	}
	time.Sleep(now.slow)
	if now.Fail {
		return &fs.PathError{Op: op, Path: path, Err: syscall.EIO}
	}
	return nil
}

// take takes room for so many more bytes; 0 is for what needs some, and not much.
func (d *disk) take(path string, bytes int64) error {
	now := d.asked.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begin(now)
	if now.Full || now.Free != nil && d.left < max(bytes, 1) {
		return &fs.PathError{Op: "write", Path: path, Err: syscall.ENOSPC}
	}
	d.left -= bytes
	return nil
}

func (d *disk) give(bytes int64) {
	now := d.asked.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begin(now)
	d.left += bytes
}

func (d *disk) begin(now *ill) {
	if d.of != now {
		d.of, d.left = now, 0
		if now.Free != nil {
			d.left = *now.Free
		}
	}
}

// free is how many bytes are free, where so many really are.
func (d *disk) free(real uint64) uint64 {
	now := d.asked.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begin(now)
	switch {
	case now.Full:
		return 0
	case now.Free != nil:
		return min(real, uint64(max(d.left, 0)))
	}
	return real
}
