package wire

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvdstore/kvd/kv"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

var descriptor = &kv.Descriptor{
	Shard: 7, Span: kv.Span{Start: []byte("a"), End: []byte("m")}, Epoch: kv.Epoch{Version: 3, Config: 4},
	Replicas: []kv.Replica{{Node: 1, Replica: 11}, {Node: 2, Replica: 12, Learner: true}},
}

func TestErrorsTravel(t *testing.T) {
	tests := []struct {
		err   error
		code  codes.Code
		retry bool
	}{
		{&kv.InvalidError{Field: "key", Bound: "1 to 4096 bytes, has 0"}, codes.InvalidArgument, false},
		{&kv.NotLeaderError{Shard: 7, Leader: 3}, codes.Unavailable, true},
		{&kv.NotLeaderError{Shard: 7}, codes.Unavailable, true},
		{&kv.StaleEpochError{Descriptors: []*kv.Descriptor{descriptor}}, codes.Unavailable, true},
		{kv.ErrNoMap, codes.Unavailable, true},
		{kv.ErrStopping, codes.Unavailable, true},
		{&kv.OverloadError{What: "a queue of the node", RetryAfter: 70 * time.Millisecond}, codes.ResourceExhausted, true},
		{&kv.DiskFullError{Node: 2}, codes.ResourceExhausted, true},
		{&kv.CrossShardError{Shards: []kv.ShardID{1, 2}}, codes.FailedPrecondition, false},
		{kv.ErrNotANumber, codes.FailedPrecondition, false},
		{kv.ErrUnsupported, codes.Unimplemented, false},
	}
	address := func(n kv.NodeID) string { return fmt.Sprintf("node%d:7400", n) }
	for _, op := range []Op{Read, Write} {
		for _, test := range tests {
			sent := StatusError(op, fmt.Errorf("forward: %w", test.err), address)
			s := status.Convert(sent)
			if s.Code() != test.code {
				t.Errorf("%v: code %v, want %v", test.err, s.Code(), test.code)
			}
			if d := DetailOf(sent); d == nil || d.Outcome != kvdv1.ErrorDetail_NOT_DONE {
				t.Errorf("%v: detail %v does not say not done", test.err, d)
			} else if d.Leader != 0 && d.Reason == kvdv1.ErrorDetail_NOT_LEADER && d.LeaderAddress != "node3:7400" {
				t.Errorf("%v: leader's address is %q", test.err, d.LeaderAddress)
			}
			if hasRetryInfo(s) != test.retry {
				t.Errorf("%v: RetryInfo %v, want %v", test.err, !test.retry, test.retry)
			}
			got := ToError(op, FromStatus(sent))
			if got.Error() != "forward: "+test.err.Error() {
				t.Errorf("%v became %q", test.err, got)
			}
			if kv.OutcomeOf(got) != kv.NotDone || kv.Retryable(got) != test.retry {
				t.Errorf("%v: outcome %v, retryable %v", test.err, kv.OutcomeOf(got), kv.Retryable(got))
			}
			if !sameKind(got, test.err) {
				t.Errorf("%#v became %#v", test.err, got)
			}
		}
	}
}

// sameKind reports whether got holds a value equal to want, or the sentinel itself.
func sameKind(got, want error) bool {
	for err := got; err != nil; err = errors.Unwrap(err) {
		if err == want {
			return true
		}
		if _, ok := want.(*kv.InvalidError); ok { // The words of the bound hold the prefix of the wrapper too.
			if e, ok := err.(*kv.InvalidError); ok && e.Field == "key" {
				return true
			}
		}
		if reflect.DeepEqual(err, want) {
			return true
		}
	}
	return false
}

func hasRetryInfo(s *status.Status) bool {
	for _, d := range s.Details() {
		if _, ok := d.(*errdetails.RetryInfo); ok {
			return true
		}
	}
	return false
}

func TestUnknownIsNeverUnavailable(t *testing.T) {
	disk := errors.New("disk on fire")
	tests := []struct {
		op      Op
		err     error
		code    codes.Code
		outcome kvdv1.ErrorDetail_Outcome
	}{
		{Write, kv.ErrUnknown, codes.Unknown, kvdv1.ErrorDetail_UNKNOWN},
		{Write, fmt.Errorf("%w: %w", kv.ErrUnknown, &kv.NotLeaderError{Shard: 1}), codes.Unknown, kvdv1.ErrorDetail_UNKNOWN},
		{Write, disk, codes.Unknown, kvdv1.ErrorDetail_UNKNOWN},
		{Write, context.DeadlineExceeded, codes.DeadlineExceeded, kvdv1.ErrorDetail_UNKNOWN},
		{Write, errors.Join(kv.ErrUnknown, context.Canceled), codes.Canceled, kvdv1.ErrorDetail_UNKNOWN},
		{Read, kv.ErrUnknown, codes.Unavailable, kvdv1.ErrorDetail_NOT_DONE},
		{Read, disk, codes.Internal, kvdv1.ErrorDetail_NOT_DONE},
		{Read, context.DeadlineExceeded, codes.DeadlineExceeded, kvdv1.ErrorDetail_NOT_DONE},
		{Read, context.Canceled, codes.Canceled, kvdv1.ErrorDetail_NOT_DONE},
	}
	for _, test := range tests {
		sent := StatusError(test.op, test.err, nil)
		if got := status.Code(sent); got != test.code {
			t.Errorf("%v of op %v: code %v, want %v", test.err, test.op, got, test.code)
		}
		if got := DetailOf(sent).Outcome; got != test.outcome {
			t.Errorf("%v of op %v: outcome %v, want %v", test.err, test.op, got, test.outcome)
		}
		back := ToError(test.op, FromStatus(sent))
		if got := errors.Is(back, kv.ErrUnknown); got != (test.op == Write) {
			t.Errorf("%v of op %v came back as %v: unknown is %v", test.err, test.op, back, got)
		}
		for _, end := range []error{context.DeadlineExceeded, context.Canceled} {
			if errors.Is(test.err, end) != errors.Is(back, end) {
				t.Errorf("%v of op %v came back as %v", test.err, test.op, back)
			}
		}
	}
}

func TestErrorsWithoutDetail(t *testing.T) {
	proxy := status.Error(codes.Unavailable, "upstream connect error")
	if err := ToError(Write, FromStatus(proxy)); !errors.Is(err, kv.ErrUnknown) || kv.Retryable(err) {
		t.Errorf("a write's error without a detail came back as %#v", err)
	}
	if err := ToError(Read, FromStatus(proxy)); !kv.Retryable(err) || errors.Is(err, kv.ErrUnknown) {
		t.Errorf("a read's error without a detail came back as %#v", err)
	}
	if err := ToError(Write, FromStatus(context.DeadlineExceeded)); !errors.Is(err, context.DeadlineExceeded) ||
		!errors.Is(err, kv.ErrUnknown) {
		t.Errorf("a write's deadline came back as %#v", err)
	}
	if FromStatus(nil) != nil || ToError(Write, nil) != nil {
		t.Error("no error became one")
	}
}

func TestHeaderAndDescriptorTravel(t *testing.T) {
	h := kv.Header{Shard: 1, Epoch: kv.Epoch{Version: 2, Config: 3}, Revision: 4, Node: 5}
	if got := ToHeader(FromHeader(h)); got != h {
		t.Errorf("header %v came back as %v", h, got)
	}
	if got := ToHeader(nil); got != (kv.Header{}) {
		t.Errorf("no header came back as %v", got)
	}
	x := FromDescriptor(descriptor, 2)
	if x.Leader != 2 {
		t.Errorf("leader %d, want 2", x.Leader)
	}
	if got := ToDescriptor(x); !reflect.DeepEqual(got, descriptor) {
		t.Errorf("descriptor %v came back as %v", descriptor, got)
	}
	if ToDescriptor(nil) != nil {
		t.Error("no descriptor became one")
	}
}

func TestMessage(t *testing.T) {
	for want, err := range map[string]error{
		"dial tcp 127.0.0.1:1: connect: connection refused": status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`),
		`authentication handshake failed: x509: not "b"`:    status.Error(codes.Unavailable, `connection error: desc = "transport: authentication handshake failed: x509: not \"b\""`),
		"connection error: desc = as it comes":              status.Error(codes.Unavailable, `connection error: desc = as it comes`),
		"no answer in time":                                 status.Error(codes.DeadlineExceeded, "context deadline exceeded"),
		"no leader":                                         status.Error(codes.Unavailable, "no leader"),
		"no status":                                         errors.New("no status"),
	} {
		if got := Message(err); got != want {
			t.Errorf("%v became %q, should be %q", err, got, want)
		}
	}
	if got := Message(status.Error(codes.Canceled, "stream terminated by RST_STREAM with error code: CANCEL")); got != "no answer in time" {
		t.Error(got)
	}
}
