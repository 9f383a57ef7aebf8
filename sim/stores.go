package sim

import (
	"errors"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"

	"github.com/kvdstore/kvd/storage"
)

// logStore and stateStore are a machine's disks.
type (
	logStore interface {
		storage.Log
		storage.Crasher
	}
	stateStore interface {
		storage.State
		storage.Crasher
	}
)

// newStores makes empty stores: in memory, or with the plan's Pebble on Pebble, on a disk in memory.
func (w *world) newStores() (logStore, stateStore, error) {
	if !w.Pebble {
		return storage.NewMemLog(), storage.NewMemState(), nil
	}
	if w.cache == nil {
		w.cache = pebble.NewCache(8 << 20)
	}
	options := func(dir string) storage.Options {
		return storage.Options{
			Dir: dir, Cache: w.cache, MemtableBytes: 1 << 20, Logger: slog.New(slog.DiscardHandler),
			// It comes from one of Pebble's goroutines.
			Fatal: func(err error) { panic(err) },
		}
	}
	log, err := storage.NewCrashLog(options("log"))
	if err != nil {
		return nil, nil, err
	}
	state, err := storage.NewCrashState(options("state"))
	return log, state, err
}

// closeStores ends the stores, with all that is still open on them.
func (w *world) closeStores() error {
	if !w.Pebble {
		return nil
	}
	var errs []error
	for _, m := range w.machines {
		none := func(int) int { return 0 }
		errs = append(errs, m.state.Crash(none), m.state.Close(), m.log.Close())
	}
	w.cache.Unref()
	return errors.Join(errs...)
}
