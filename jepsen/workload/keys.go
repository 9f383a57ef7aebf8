package workload

import (
	"context"
	"fmt"
	"strconv"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/client"
)

// Operations on one key, recorded as check.Operations reads them.

// value is one that nobody else writes.
func (t *thread) value() string {
	return fmt.Sprintf("%d.%d", t.process, t.run.values.Add(1))
}

func (t *thread) get(ctx context.Context, key string, asked check.Asked, list ...client.ReadOption) (told check.Told, err error) {
	asked.Key = key
	err = t.read(ctx, check.Get.String(), &asked, func(ctx context.Context) (any, error) {
		item, found, err := t.client.Get(ctx, []byte(key), list...)
		if found {
			told = check.Told{Found: true, Observed: string(item.Record.Value), Revision: item.Record.Revision, ExpireAt: t.run.moment(item.Record.ExpireAt)}
		}
		return told, err
	})
	return told, err
}

// put writes asked.Value.
func (t *thread) put(ctx context.Context, key string, asked check.Asked, list ...client.WriteOption) (told check.Told, err error) {
	asked.Key = key
	err = t.write(ctx, check.Put.String(), &asked, func(ctx context.Context) (any, error) {
		r, err := t.client.Put(ctx, []byte(key), []byte(asked.Value), list...)
		told = check.Told{Succeeded: r.Succeeded, Revision: r.Revision}
		return told, err
	})
	return told, err
}

// cas writes asked.Value if the key has the revision asked.Expect; with 0, if it is absent.
func (t *thread) cas(ctx context.Context, key string, asked check.Asked) (told check.Told, err error) {
	asked.Key = key
	condition := client.IfAbsent()
	if asked.Expect != 0 {
		condition = client.IfRevision(asked.Expect)
	}
	err = t.write(ctx, check.CAS.String(), &asked, func(ctx context.Context) (any, error) {
		r, err := t.client.Put(ctx, []byte(key), []byte(asked.Value), condition)
		told = check.Told{Succeeded: r.Succeeded, Revision: r.Revision}
		return told, err
	})
	return told, err
}

func (t *thread) delete(ctx context.Context, key string) (told check.Told, err error) {
	err = t.write(ctx, check.Delete.String(), &check.Asked{Key: key}, func(ctx context.Context) (any, error) {
		r, err := t.client.Delete(ctx, []byte(key))
		if r.Found {
			told = check.Told{Found: true, Revision: r.Revision}
		}
		return told, err
	})
	return told, err
}

func (t *thread) increment(ctx context.Context, key string, delta int64) (told check.Told, err error) {
	err = t.write(ctx, check.Increment.String(), &check.Asked{Key: key, Delta: delta}, func(ctx context.Context) (any, error) {
		n, revision, err := t.client.Increment(ctx, []byte(key), delta)
		told = check.Told{Observed: strconv.FormatInt(n, 10), Revision: revision}
		return told, err
	})
	return told, err
}

// moment puts a time of the cluster, in milliseconds since 1970, on the clock of the history; 0 stays 0.
func (r *Run) moment(ms int64) int64 {
	if ms == 0 {
		return 0
	}
	return max(1, r.Recorder.Moment(ms))
}

// note keeps what an operation on a name of a pool tells for those to come.
func (p *pool) note(name string, told check.Told, err error) {
	if err == nil {
		p.saw(name, told.Revision)
	}
	p.judge(name, err)
}

// readKeys reads keys at the end.
func (r *Run) readKeys(ctx context.Context, keys []string) error {
	return r.each(ctx, len(keys), func(ctx context.Context, t *thread, i int) error {
		_, err := t.get(ctx, keys[i], check.Asked{Final: true})
		return err
	})
}
