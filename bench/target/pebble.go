package target

import (
	"context"
	"errors"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"

	"github.com/kvdstore/kvd/bench/load"
	"github.com/kvdstore/kvd/bench/measure"
)

const (
	// pebbleMemtable, pebbleMemtables and pebbleCache are the sizes that Pebble's own benchmark has, about; the defaults are
	// made for tests.
	pebbleMemtable, pebbleMemtables, pebbleCache = 64 << 20, 4, 256 << 20
)

// pebbleStore is Pebble alone in this very process: what the disk and one copy of the data cost, without network, replicas
// or answers. Every write is synced before it is answered.
type pebbleStore struct{ db *pebble.DB }

func newPebble(c Config) (Target, error) {
	cache := pebble.NewCache(pebbleCache)
	defer cache.Unref()
	o := &pebble.Options{
		Cache: cache, MemTableSize: pebbleMemtable, MemTableStopWritesThreshold: pebbleMemtables,
		L0StopWritesThreshold: 1000, FormatMajorVersion: pebble.FormatNewest, Logger: silent{},
	}
	o.Levels[0].FilterPolicy = bloom.FilterPolicy(10)
	db, err := pebble.Open(c.Endpoints[0], o)
	if err != nil {
		return nil, err
	}
	return &pebbleStore{db}, nil
}

// silent says nothing of what goes well, and stops at what does not.
type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, args ...any) {
	pebble.DefaultLogger.Fatalf(format, args...)
}

func (t *pebbleStore) Close() error { return t.db.Close() }

func (t *pebbleStore) Judge(load.Op, error) string { return measure.Other }

func (t *pebbleStore) Session(int) (load.Session, error) { return t, nil }

// Do makes one synced commit of all writes.
func (t *pebbleStore) Do(_ context.Context, ops []load.Op, results []load.Result) {
	b := t.db.NewBatch()
	defer func() { _ = b.Close() }()
	for i, op := range ops {
		switch op.Kind {
		case load.Read:
			results[i] = t.read(op)
		case load.Scan:
			results[i] = t.scan(op)
		case load.Delete:
			results[i].Err = b.Delete(op.Key, nil)
		default:
			results[i].Err = b.Set(op.Key, op.Value, nil)
		}
	}
	if b.Empty() {
		return
	}
	err := b.Commit(pebble.Sync)
	for i, op := range ops {
		if op.Kind.Writes() {
			results[i].Err = errors.Join(results[i].Err, err)
		}
	}
}

func (t *pebbleStore) read(op load.Op) load.Result {
	_, done, err := t.db.Get(op.Key)
	if errors.Is(err, pebble.ErrNotFound) {
		return load.Result{Missed: true}
	}
	if err != nil {
		return load.Result{Err: err}
	}
	return load.Result{Err: done.Close()}
}

func (t *pebbleStore) scan(op load.Op) load.Result {
	o := &pebble.IterOptions{LowerBound: op.Key}
	if len(op.End) > 0 {
		o.UpperBound = op.End
	}
	i, err := t.db.NewIter(o)
	if err != nil {
		return load.Result{Err: err}
	}
	n := 0
	for ok := i.First(); ok && n < op.Limit; ok = i.Next() {
		if _, err := i.ValueAndErr(); err != nil {
			return load.Result{Err: errors.Join(err, i.Close())}
		}
		n++
	}
	return load.Result{Missed: n == 0, Items: n, Err: i.Close()}
}
