package target

import (
	"context"
	"errors"
	"sync"

	"github.com/kvdstore/kvd/bench/load"
	"github.com/kvdstore/kvd/bench/measure"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

// kvd is measured through its own client, as a program uses it. Each of a client's pipelines is one stream a node, so
// pipelined there are several clients.
type kvd struct {
	pipelined bool
	clients   []*client.Client
}

func newKVD(c Config) (Target, error) {
	n, each := 1, perServer(len(c.Endpoints))
	if c.Pipelined {
		n, each = each, 1
	}
	t := &kvd{pipelined: c.Pipelined}
	for range n {
		x, err := client.New(client.Config{Endpoints: c.Endpoints, Connections: each})
		if err != nil {
			return nil, errors.Join(err, t.Close())
		}
		t.clients = append(t.clients, x)
	}
	return t, nil
}

func (t *kvd) Close() error {
	var errs []error
	for _, c := range t.clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

func (t *kvd) Judge(_ load.Op, err error) string {
	switch {
	case errors.Is(err, client.ErrUnknown):
		return measure.Unknown
	case errors.Is(err, client.ErrNotDone):
		return measure.NotDone
	}
	return measure.Other
}

func (t *kvd) Session(caller int) (load.Session, error) {
	c := t.clients[caller%len(t.clients)]
	if t.pipelined {
		return &kvdPipeline{c, c.Pipeline()}, nil
	}
	return one(func(ctx context.Context, op load.Op) load.Result { return kvdUnary(ctx, c, op) }), nil
}

func kvdUnary(ctx context.Context, c *client.Client, op load.Op) load.Result {
	switch op.Kind {
	case load.Read:
		_, found, err := c.Get(ctx, op.Key)
		return load.Result{Err: err, Missed: !found}
	case load.Update, load.Insert:
		_, err := c.Put(ctx, op.Key, op.Value)
		return load.Result{Err: err}
	case load.Delete:
		_, err := c.Delete(ctx, op.Key)
		return load.Result{Err: err}
	case load.Scan:
		return kvdScan(ctx, c, op)
	}
	return cannot(op, "kvd")
}

func kvdScan(ctx context.Context, c *client.Client, op load.Op) load.Result {
	n := 0
	for _, err := range c.Scan(ctx, client.ScanOptions{Span: kv.Span{Start: op.Key, End: op.End}, Limit: op.Limit}) {
		if err != nil {
			return load.Result{Err: err}
		}
		n++
	}
	return load.Result{Missed: n == 0, Items: n}
}

// kvdPipeline has its operations under way together. Scans have a stream each in any case.
type kvdPipeline struct {
	c *client.Client
	p *client.Pipeline
}

func (s *kvdPipeline) Do(ctx context.Context, ops []load.Op, results []load.Result) {
	var under sync.WaitGroup
	for i, op := range ops {
		result := &results[i]
		switch op.Kind {
		case load.Read:
			under.Add(1)
			s.p.GoGet(ctx, op.Key, func(_ client.Item, found bool, err error) {
				*result = load.Result{Err: err, Missed: !found}
				under.Done()
			})
		case load.Update, load.Insert:
			under.Add(1)
			s.p.GoPut(ctx, op.Key, op.Value, func(_ client.PutResult, err error) {
				result.Err = err
				under.Done()
			})
		case load.Delete:
			under.Add(1)
			s.p.GoDelete(ctx, op.Key, func(_ client.DeleteResult, err error) {
				result.Err = err
				under.Done()
			})
		default:
			*result = kvdUnary(ctx, s.c, op)
		}
	}
	under.Wait()
}
