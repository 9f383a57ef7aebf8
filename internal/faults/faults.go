//go:build kvdtest

// Package faults is what a test build of kvd (`go build -tags kvdtest ./cmd/kvd`) does to itself: its wall clock steps, its
// disk loses at a kill what was not synced, is full, slow, stuck or broken, its links to other nodes lead where a test
// wants them, and what it says to others is lost, late or repeated. A normal build does not contain it.
//
// It is told what to do by files in the directory that the environment names in KVD_TEST_DIR:
//
//	clock   how far the wall clock is off, as a duration: -30s
//	disk    {"slow": "50ms", "stall": true, "fail": true, "full": true, "free": 1000000}
//	links   {"10.0.0.2:7400": "127.0.0.1:21002"}: the addresses that are dialled instead of those of nodes
//	stall   how long the event loop stands still, once: 1s
//	crash   vote-sent 2: where the process ends, at the second time
//	messages [{"of": ["MsgApp"], "to": [2], "shards": [3], "lose": true, "late": "1s", "copies": 3, "over": "2s"}]
//
// A file that is missing or empty says nothing. Each is looked at again when it is asked for and the last look was
// lookInterval ago; it is to be replaced by a rename, so that nobody sees a half of it.
package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Env names the directory.
const Env = "KVD_TEST_DIR"

// lookInterval is how old what is known of a file may be.
const lookInterval = 10 * time.Millisecond

// process are the faults of this process.
var process = sync.OnceValue(func() *faults { return newFaults(os.Getenv(Env), vfs.Default) })

// faults are those that a directory asks for. Without a directory there is none but that unsynced data is lost.
type faults struct {
	clock    *told[time.Duration]
	links    *told[map[string]string]
	messages *messages
	stall    *told[time.Duration]
	disk     *disk
	files    *lossy

	crashes *crashes
}

func newFaults(dir string, real vfs.FS) *faults {
	d := &disk{asked: newTold(dir, "disk", parseDisk)}
	return &faults{
		clock:    newTold(dir, "clock", parseDuration),
		stall:    newTold(dir, "stall", parseDuration),
		links:    newTold(dir, "links", func(b []byte) (m map[string]string, err error) { return m, json.Unmarshal(b, &m) }),
		messages: &messages{rules: newTold(dir, "messages", parseMessages)},
		disk:     d, files: newLossy(real, d),
		crashes: &crashes{asked: newTold(dir, "crash", parseCrash), end: die},
	}
}

func parseDuration(b []byte) (time.Duration, error) {
	return time.ParseDuration(strings.TrimSpace(string(b)))
}

// Stall is how long the event loop is to stand still. Another pointer is another time.
func Stall() *time.Duration { return process().stall.now() }

// WallOffset is how far the wall clock is off.
func WallOffset() time.Duration { return *process().clock.now() }

// Dialled is the address that is dialled for that of a node.
func Dialled(address string) string { return process().dialled(address) }

func (f *faults) dialled(address string) string {
	if instead, ok := (*f.links.now())[address]; ok {
		return instead
	}
	return address
}

// Files is the file system that loses what was not synced.
func Files() vfs.FS { return process().files }

// Free corrects how many bytes of a disk are free.
func Free(free uint64) uint64 { return process().disk.free(free) }

// Take takes room for so many bytes that are not written through Files; Give gives it back.
func Take(bytes int64) error { return process().disk.take("room", bytes) }
func Give(bytes int64)       { process().disk.give(bytes) }

// told is what one file of the directory says.
type told[T any] struct {
	path  string // Empty without a directory.
	parse func([]byte) (T, error)
	began time.Time

	looked atomic.Int64 // Since began; 0 is never.
	mu     sync.Mutex
	text   []byte
	value  atomic.Pointer[T] // Another one whenever the text changes.
}

func newTold[T any](dir, name string, parse func([]byte) (T, error)) *told[T] {
	f := &told[T]{parse: parse, began: time.Now()}
	if dir != "" {
		f.path = filepath.Join(dir, name)
	}
	f.value.Store(new(T))
	return f
}

// now gives what the file says, or said before it held nonsense. It is never nil.
func (f *told[T]) now() *T {
	last, now := f.looked.Load(), int64(time.Since(f.began))+1
	if f.path != "" && (last == 0 || now-last >= int64(lookInterval)) && f.mu.TryLock() {
		f.look()
		f.looked.Store(now)
		f.mu.Unlock()
	}
	return f.value.Load()
}

func (f *told[T]) look() {
	b, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		b, err = nil, nil
	}
	if err != nil || bytes.Equal(b, f.text) {
		return
	}
	f.text = b
	value := new(T)
	if len(bytes.TrimSpace(b)) > 0 {
		if *value, err = f.parse(b); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", f.path, err)
			return
		}
	}
	f.value.Store(value)
}
