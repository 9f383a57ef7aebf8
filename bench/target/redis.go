package target

import (
	"context"
	"errors"
	"io"

	"github.com/redis/go-redis/v9"

	"github.com/kvdstore/kvd/bench/load"
	"github.com/kvdstore/kvd/bench/measure"
)

// redisIndex is a sorted set of all keys, for workloads that scan: Redis' own keys have no order.
const redisIndex = "kvd-bench-index"

// redisStore has a connection for each caller, as Redis' own benchmark does.
type redisStore struct {
	ordered bool
	client  *redis.Client
}

func newRedis(c Config) (Target, error) {
	return &redisStore{ordered: c.Ordered, client: redis.NewClient(&redis.Options{
		Addr: c.Endpoints[0], PoolSize: max(c.Callers, 1), MaxRetries: -1, ReadTimeout: callMax, WriteTimeout: callMax, PoolTimeout: callMax,
	})}, nil
}

func (t *redisStore) Close() error { return t.client.Close() }

// Judge knows that an error which Redis itself tells came before anything was done.
func (t *redisStore) Judge(op load.Op, err error) string {
	if _, told := errors.AsType[redis.Error](err); told {
		return measure.NotDone
	}
	return judge(op, err)
}

func (t *redisStore) Session(int) (load.Session, error) { return t, nil }

// Do sends all operations before it waits for the first answer.
func (t *redisStore) Do(ctx context.Context, ops []load.Op, results []load.Result) {
	if len(ops) == 1 && !t.ordered {
		results[0] = resultOf(ops[0], t.send(ctx, t.client, ops[0]))
		return
	}
	pipe := t.client.Pipeline()
	sent := make([]redis.Cmder, len(ops))
	for i, op := range ops {
		sent[i] = t.send(ctx, pipe, op)
	}
	_, _ = pipe.Exec(ctx) // Each command has its own error.
	for i, op := range ops {
		if results[i] = resultOf(op, sent[i]); op.Kind == load.Scan && results[i].Err == nil {
			results[i] = t.values(ctx, sent[i])
		}
	}
}

// send sends an operation.
func (t *redisStore) send(ctx context.Context, to redis.Cmdable, op load.Op) redis.Cmder {
	key := string(op.Key)
	switch op.Kind {
	case load.Read:
		return to.Get(ctx, key)
	case load.Update, load.Insert:
		if t.ordered {
			to.ZAdd(ctx, redisIndex, redis.Z{Member: key})
		}
		return to.Set(ctx, key, op.Value, 0)
	case load.Delete:
		if t.ordered {
			to.ZRem(ctx, redisIndex, key)
		}
		return to.Del(ctx, key)
	case load.Scan:
		end := "+"
		if len(op.End) > 0 {
			end = "(" + string(op.End)
		}
		return to.ZRangeByLex(ctx, redisIndex, &redis.ZRangeBy{Min: "[" + key, Max: end, Count: int64(op.Limit)})
	}
	c := redis.NewCmd(ctx)
	c.SetErr(cannot(op, "redis").Err)
	return c
}

func resultOf(op load.Op, c redis.Cmder) load.Result {
	if err := c.Err(); errors.Is(err, redis.Nil) {
		return load.Result{Missed: true}
	} else if err != nil {
		return load.Result{Err: err}
	}
	return load.Result{}
}

// values reads what a scan has found.
func (t *redisStore) values(ctx context.Context, found redis.Cmder) load.Result {
	keys, ok := found.(*redis.StringSliceCmd)
	if !ok || len(keys.Val()) == 0 {
		return load.Result{Missed: true}
	}
	values, err := t.client.MGet(ctx, keys.Val()...).Result()
	return load.Result{Err: err, Items: len(values)}
}

// judge tells of an error of a store that does not say whether a write was done: after a time-out or a break that is
// unknown, and everything else is another error.
func judge(op load.Op, err error) string {
	if !broken(err) {
		return measure.Other
	}
	if op.Kind.Writes() {
		return measure.Unknown
	}
	return measure.NotDone
}

// broken tells whether an error came from a connection, or from time.
func broken(err error) bool {
	if _, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
