package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/client/route"
	"github.com/kvdstore/kvd/kv"
)

// services are those of a node.
type services struct {
	kvdv1.KVClient
	kvdv1.AdminClient
}

// call makes attempts of a request.
type call interface {
	// over makes one over a connection. Of what it gives the header may be nil; sent is false if the request surely has not left.
	over(ctx context.Context, conn *grpc.ClientConn, t route.Target) (h *kvdv1.ResponseHeader, sent bool, err error)
}

// byStub is a call by the generated clients.
type byStub func(ctx context.Context, api services) error

func (f byStub) over(ctx context.Context, conn *grpc.ClientConn, _ route.Target) (*kvdv1.ResponseHeader, bool, error) {
	marked := &wire.MarkedConn{Conn: conn}
	err := f(ctx, services{kvdv1.NewKVClient(marked), kvdv1.NewAdminClient(marked)})
	return nil, marked.Sent(), err
}

// unary is a call of one request and one answer, without what a stub would allocate.
type unary struct {
	wire.Marked
	method string
	// head is where the request has its header.
	head   **kvdv1.RequestHeader
	header kvdv1.RequestHeader
	reply  replying
}

// replying is an answer.
type replying interface {
	GetHeader() *kvdv1.ResponseHeader
}

func (u *unary) over(ctx context.Context, conn *grpc.ClientConn, t route.Target) (*kvdv1.ResponseHeader, bool, error) {
	u.Unmark()
	u.header.Shard, u.header.Version = uint64(t.Route.Shard), t.Route.Version
	if *u.head = &u.header; t.Route.Version == 0 {
		*u.head = nil
	}
	if err := conn.Invoke(ctx, u.method, &u.Marked, u.reply); err != nil {
		return nil, u.Sent(), err
	}
	return u.reply.GetHeader(), true, nil
}

// request is what do tries until it is known how it ended.
type request struct {
	op   wire.Op
	at   place
	key  []byte // By which it is routed; not for atAny.
	call call

	// end is the caller's deadline or, when there is none, the client's own.
	end   time.Time
	ours  bool
	tried bool
	flight
	joined joined
}

// begin notes by when a request has to end.
func (r *request) begin(ctx context.Context) {
	var theirs bool
	if r.end, theirs = ctx.Deadline(); !theirs {
		r.end, r.ours = time.Now().Add(kv.RequestTimeout), true
	}
}

// limit is for how long an attempt may last; 0 when only the caller ends it.
func (r *request) limit(silence time.Duration) time.Duration {
	switch {
	case !r.ours && r.op == wire.Write:
		return 0
	case !r.ours:
		if time.Until(r.end) <= silence {
			return 0
		}
		return silence
	case r.op == wire.Write:
		silence = kv.RequestTimeout
	}
	return max(min(time.Until(r.end), silence), 1)
}

// verdict is what an attempt came to.
type verdict struct {
	err      error         // Marked with its outcome; nil when it was done.
	again    bool          // It was not done, and is worth another try,
	redirect bool          // at once, because another node is known to be better,
	after    time.Duration // or after so long, as the node asked.
	silent   bool          // The node did not answer in time.
}

// do tries a request until it has an answer, its end is not known, or the deadline comes.
func (c *Client) do(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return notDone{err}
	}
	c.refreshFirst()
	r.begin(ctx)
	start, redirects, silences := rand.Int()&0xffff, 0, 0
	for n := 0; ; n++ {
		v := c.attempt(ctx, r, start+n, attemptMax<<silences)
		switch {
		case !v.again:
			return v.err
		case v.redirect && redirects < redirectsMax:
			redirects++
			continue
		case v.silent:
			silences = min(silences+1, silencesMax)
		}
		if !sleep(ctx, r.end, pause(n, v.after)) {
			return gaveUp(ctx, v.err, n+1)
		}
	}
}

// attempt makes one attempt; n numbers them. A read that has no answer within the silence ends; a write waits.
func (c *Client) attempt(ctx context.Context, r *request, n int, silence time.Duration) verdict {
	t := c.target(r.at, r.key, n)
	e, err := c.pool.acquire(t.Address)
	if err != nil {
		return verdict{err: notDone{err}}
	}
	defer e.release()
	h, sent, err := c.fly(ctx, r, n, t, e, r.limit(silence))
	if err == nil {
		c.answered(e)
		c.learn(t, h, r.at == atLeader)
		return verdict{}
	}
	return c.judge(ctx.Err() != nil || r.ours && !time.Now().Before(r.end), r.op, t, e, sent, err)
}

// fly makes the call of an attempt, for so long at most, unless that is 0.
func (c *Client) fly(ctx context.Context, r *request, n int, t route.Target, e *endpoint, limit time.Duration) (h *kvdv1.ResponseHeader, sent bool, err error) {
	f := &r.flight
	f.e, f.conn, f.asks, f.shared = e, e.conn(), r.op == wire.Write, nil
	tick := c.takeOff(f, n)
	defer func() {
		if c.land(f) && err != nil {
			err = lateError(err)
		}
	}()
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = c.limited(ctx, r, tick, limit)
		defer cancel()
	}
	return r.call.over(ctx, f.conn, t)
}

// limited gives the context of an attempt that began at a tick and may last so long: a shared one if it is the first of a caller without a deadline.
func (c *Client) limited(ctx context.Context, r *request, tick int64, limit time.Duration) (context.Context, context.CancelFunc) {
	if r.ours && !r.tried {
		r.tried = true
		kind := &c.flights.reads
		if r.op == wire.Write {
			kind = &c.flights.writes
		}
		if r.shared = kind.join(ctx, tick, limit); r.shared != nil {
			r.joined = joined{r.shared, ctx}
			return &r.joined, func() {}
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	r.bound(cancel, limit)
	return ctx, cancel
}

// headerOf tells a node by what it was chosen.
func headerOf(t route.Target) *kvdv1.RequestHeader {
	if t.Route.Version == 0 {
		return nil
	}
	return &kvdv1.RequestHeader{Shard: uint64(t.Route.Shard), Version: t.Route.Version}
}

// judge tells what the error of a call means; ended tells that the caller's time is over, or the client's own for it.
func (c *Client) judge(ended bool, op wire.Op, t route.Target, e *endpoint, sent bool, err error) verdict {
	p := wire.FromStatus(err)
	if p.Detail != nil {
		c.answered(e)
		return c.judgeAnswer(op, t, p)
	}
	code := codes.Code(p.Code)
	if !ended && (!sent || lost(code)) && c.ctx.Err() == nil {
		c.suspect(e)
		c.refresh()
	}
	switch err := (&lostError{t.Address, err}); {
	case c.ctx.Err() != nil && !sent:
		return verdict{err: notDone{ErrClosed}}
	case !sent:
		return verdict{err: notDone{err}, again: !ended}
	case op == wire.Write:
		return verdict{err: unknown{err}}
	case ended:
		return verdict{err: notDone{err}}
	}
	after := retryInfo(err)
	return verdict{
		err: notDone{&lostError{t.Address, err}}, again: lost(code) || after > 0, after: after, silent: code == codes.DeadlineExceeded,
	}
}

// judgeAnswer tells what an error means that a node of kvd has answered with.
func (c *Client) judgeAnswer(op wire.Op, t route.Target, p *kvdv1.PipelineError) verdict {
	err := wire.ToError(op, p)
	if op == wire.Write && p.GetDetail().GetOutcome() != kvdv1.ErrorDetail_NOT_DONE {
		return verdict{err: unknown{err}}
	}
	v := verdict{err: notDone{err}, again: kv.Retryable(err), after: time.Duration(p.GetDetail().GetRetryAfterMs()) * time.Millisecond}
	switch code := codes.Code(p.GetCode()); {
	case code == codes.Unavailable, code == codes.ResourceExhausted:
		v.again = true // Also for a reason that this client does not know yet.
	case op == wire.Read && code == codes.DeadlineExceeded:
		v.again = true // It was the attempt's deadline: the caller's is looked at before the next one.
	}
	v.redirect = c.learnError(t, p.GetDetail())
	return v
}

// lost tells whether a code without a detail means that the node is not there, or not well.
func lost(code codes.Code) bool {
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unknown, codes.Internal:
		return true
	}
	return false
}

// retryInfo gives the pause that an error asks for; 0 for none.
func retryInfo(err error) time.Duration {
	s, _ := status.FromError(err)
	for _, d := range s.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			return r.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

// pause is before the attempt after the n-th (from 0). What the node asks for is never cut short.
func pause(n int, asked time.Duration) time.Duration {
	d := min(pauseMin<<min(n, 10), pauseMax)
	if asked > 0 {
		return asked + rand.N(max(asked/2, d))
	}
	return d/2 + rand.N(d)
}

// sleep waits; it is false, at once, when the end would come first: a zero one never does.
func sleep(ctx context.Context, end time.Time, d time.Duration) bool {
	if !end.IsZero() && time.Until(end) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// gaveUp says of the last refusal that there was no time for another attempt.
func gaveUp(ctx context.Context, err error, attempts int) error {
	end := ctx.Err()
	if end == nil {
		end = context.DeadlineExceeded // The next attempt would come after it.
	}
	if errors.Is(err, end) {
		return err
	}
	return notDone{fmt.Errorf("%w (attempts: %d, then %w)", err, attempts, end)}
}
