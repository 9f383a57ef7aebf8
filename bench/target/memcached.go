package target

import (
	"context"
	"errors"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/kvdstore/kvd/bench/load"
)

// memcached has a connection for each caller.
type memcached struct{ client *memcache.Client }

func newMemcached(c Config) (Target, error) {
	x := memcache.New(c.Endpoints...)
	x.Timeout, x.MaxIdleConns = callMax, max(c.Callers, 1)
	return &memcached{x}, nil
}

func (t *memcached) Close() error { return t.client.Close() }

func (t *memcached) Judge(op load.Op, err error) string { return judge(op, err) }

func (t *memcached) Session(int) (load.Session, error) { return one(t.one), nil }

func (t *memcached) one(_ context.Context, op load.Op) load.Result {
	switch op.Kind {
	case load.Read:
		_, err := t.client.Get(string(op.Key))
		if errors.Is(err, memcache.ErrCacheMiss) {
			return load.Result{Missed: true}
		}
		return load.Result{Err: err}
	case load.Update, load.Insert:
		return load.Result{Err: t.client.Set(&memcache.Item{Key: string(op.Key), Value: op.Value})}
	case load.Delete:
		if err := t.client.Delete(string(op.Key)); !errors.Is(err, memcache.ErrCacheMiss) {
			return load.Result{Err: err}
		}
		return load.Result{}
	}
	return cannot(op, "memcached")
}
