package target

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvdstore/kvd/bench/load"
	"github.com/kvdstore/kvd/bench/measure"
)

// callMax is how long a call of a store may take whose client has no bound of its own: as long as kvd's.
const callMax = 10 * time.Second

// etcd is measured through its own client. Gets are linearizable, as they are by default.
type etcd struct {
	clients []*clientv3.Client
}

func newEtcd(c Config) (Target, error) {
	t := &etcd{}
	for range perServer(len(c.Endpoints)) { // Each has a connection to every server.
		x, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints, DialTimeout: callMax, Logger: zap.NewNop()})
		if err != nil {
			return nil, errors.Join(err, t.Close())
		}
		t.clients = append(t.clients, x)
	}
	return t, nil
}

func (t *etcd) Close() error {
	var errs []error
	for _, c := range t.clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Judge goes by the code: a call that ran out of time, or whose server went away, may have been done.
func (t *etcd) Judge(op load.Op, err error) string {
	code := status.Code(err)
	if told, ok := errors.AsType[rpctypes.EtcdError](err); ok { // The server's own errors carry none that gRPC would find.
		code = told.Code()
	}
	switch {
	case code == codes.ResourceExhausted:
		return measure.NotDone
	case code == codes.Unavailable, code == codes.DeadlineExceeded, code == codes.Canceled, errors.Is(err, context.DeadlineExceeded):
		if op.Kind.Writes() {
			return measure.Unknown
		}
		return measure.NotDone
	}
	return measure.Other
}

func (t *etcd) Session(caller int) (load.Session, error) {
	return etcdSession{t.clients[caller%len(t.clients)]}, nil
}

type etcdSession struct{ c *clientv3.Client }

// Do does one operation by a call; several are the puts of a filling, in one transaction.
func (s etcdSession) Do(ctx context.Context, ops []load.Op, results []load.Result) {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	if len(ops) == 1 {
		results[0] = s.one(ctx, ops[0])
		return
	}
	var puts []clientv3.Op
	for _, op := range ops {
		puts = append(puts, clientv3.OpPut(string(op.Key), string(op.Value)))
	}
	_, err := s.c.Txn(ctx).Then(puts...).Commit()
	for i := range results {
		results[i].Err = err
	}
}

func (s etcdSession) one(ctx context.Context, op load.Op) load.Result {
	switch op.Kind {
	case load.Read:
		r, err := s.c.Get(ctx, string(op.Key))
		return load.Result{Err: err, Missed: err == nil && len(r.Kvs) == 0}
	case load.Update, load.Insert:
		_, err := s.c.Put(ctx, string(op.Key), string(op.Value))
		return load.Result{Err: err}
	case load.Delete:
		_, err := s.c.Delete(ctx, string(op.Key))
		return load.Result{Err: err}
	case load.Scan:
		end := string(op.End)
		if end == "" {
			end = "\x00" // To the last key.
		}
		r, err := s.c.Get(ctx, string(op.Key), clientv3.WithRange(end), clientv3.WithLimit(int64(op.Limit)))
		if err != nil {
			return load.Result{Err: err}
		}
		return load.Result{Missed: len(r.Kvs) == 0, Items: len(r.Kvs)}
	}
	return cannot(op, "etcd")
}
