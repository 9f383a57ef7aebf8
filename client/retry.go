package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
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

// call is one attempt of a request. Of what it gives the header may be nil.
type call func(ctx context.Context, api services, h *kvdv1.RequestHeader) (*kvdv1.ResponseHeader, error)

// request is what do tries until it is known how it ended.
type request struct {
	op   wire.Op
	at   place
	key  []byte // By which it is routed; not for atAny.
	call call
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
func (c *Client) do(ctx context.Context, r request) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return notDone{err}
	}
	c.refreshFirst()
	start, redirects, silences := rand.Int()&0xffff, 0, 0
	for n := 0; ; n++ {
		v := c.attempt(ctx, r, c.target(r.at, r.key, start+n), attemptMax<<silences)
		switch {
		case !v.again:
			return v.err
		case v.redirect && redirects < redirectsMax:
			redirects++
			continue
		case v.silent:
			silences = min(silences+1, silencesMax)
		}
		if !sleep(ctx, pause(n, v.after)) {
			return gaveUp(ctx, v.err, n+1)
		}
	}
}

// attempt makes one attempt. A read that has no answer within the silence ends; a write waits.
func (c *Client) attempt(ctx context.Context, r request, t route.Target, silence time.Duration) verdict {
	e, err := c.pool.acquire(t.Address)
	if err != nil {
		return verdict{err: notDone{err}}
	}
	defer e.release()
	conn, trying := e.conn(), ctx
	if r.op == wire.Read {
		var cancel context.CancelFunc
		trying, cancel = context.WithTimeout(ctx, silence)
		defer cancel()
	} else {
		defer c.watch(e, conn)()
	}
	marked := &wire.MarkedConn{Conn: conn}
	h, err := r.call(trying, services{kvdv1.NewKVClient(marked), kvdv1.NewAdminClient(marked)}, headerOf(t))
	if err == nil {
		c.answered(e)
		c.learn(h, r.at == atLeader)
		return verdict{}
	}
	return c.judge(ctx, r.op, t, e, marked.Sent(), err)
}

// headerOf tells a node by what it was chosen.
func headerOf(t route.Target) *kvdv1.RequestHeader {
	if t.Route.Version == 0 {
		return nil
	}
	return &kvdv1.RequestHeader{Shard: uint64(t.Route.Shard), Version: t.Route.Version}
}

// judge tells what the error of a call means.
func (c *Client) judge(ctx context.Context, op wire.Op, t route.Target, e *endpoint, sent bool, err error) verdict {
	p := wire.FromStatus(err)
	if p.Detail != nil {
		c.answered(e)
		return c.judgeAnswer(op, t, p)
	}
	code := codes.Code(p.Code)
	if ctx.Err() == nil && (!sent || lost(code)) && c.ctx.Err() == nil {
		c.suspect(e)
		c.refresh()
	}
	switch err := (&lostError{t.Address, err}); {
	case c.ctx.Err() != nil && !sent:
		return verdict{err: notDone{ErrClosed}}
	case !sent:
		return verdict{err: notDone{err}, again: ctx.Err() == nil}
	case op == wire.Write:
		return verdict{err: unknown{err}}
	case ctx.Err() != nil:
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

// sleep waits; it is false, at once, when the context would end first.
func sleep(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
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
