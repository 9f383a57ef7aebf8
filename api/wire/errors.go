package wire

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/kvdstore/kvd/kv"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

// Op says whether an error is a read's or a write's: only a write can be unknown.
type Op uint8

const (
	// Read changes nothing, so its error is always not done.
	Read Op = iota
	// Write may have been done, or may still be, unless its error says otherwise.
	Write
)

// NodeAddress gives the address of a node as HOST:PORT, empty when unknown.
type NodeAddress func(kv.NodeID) string

// FromError gives an error as it travels. address may be nil. The code of a write that is unknown is UNKNOWN,
// never UNAVAILABLE: proxies repeat what is unavailable.
func FromError(op Op, err error, address NodeAddress) *kvdv1.PipelineError {
	code, d := describe(op, err, address)
	return &kvdv1.PipelineError{Code: int32(code), Message: err.Error(), Detail: d}
}

// describe gives code and detail of an error. Whatever is not named here is unknown for a write, and a fault of
// ours for a read.
func describe(op Op, err error, address NodeAddress) (codes.Code, *kvdv1.ErrorDetail) {
	if kv.OutcomeOf(err) == kv.NotDone && !errors.Is(err, kv.ErrUnknown) { // What is both is unknown.
		return notDone(err, address)
	}
	code := codes.Unknown
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	}
	if op == Write {
		return code, &kvdv1.ErrorDetail{Outcome: kvdv1.ErrorDetail_UNKNOWN, Reason: kvdv1.ErrorDetail_OUTCOME_UNKNOWN}
	}
	d := &kvdv1.ErrorDetail{Outcome: kvdv1.ErrorDetail_NOT_DONE}
	switch {
	case code != codes.Unknown:
		return code, d
	case errors.Is(err, kv.ErrUnknown): // The leader was lost on the way: the read is worth another try.
		d.Reason, d.RetryAfterMs = kvdv1.ErrorDetail_NOT_LEADER, millis(kv.RetryAfter)
		return codes.Unavailable, d
	}
	return codes.Internal, d
}

// notDone gives code and detail of what kv.OutcomeOf calls not done.
func notDone(err error, address NodeAddress) (codes.Code, *kvdv1.ErrorDetail) {
	d := &kvdv1.ErrorDetail{Outcome: kvdv1.ErrorDetail_NOT_DONE}
	if kv.Retryable(err) {
		d.RetryAfterMs = millis(kv.RetryAfter)
	}
	switch {
	case errors.Is(err, kv.ErrNoMap):
		d.Reason = kvdv1.ErrorDetail_NO_MAP
		return codes.Unavailable, d
	case errors.Is(err, kv.ErrStopping):
		d.Reason = kvdv1.ErrorDetail_STOPPING
		return codes.Unavailable, d
	case errors.Is(err, kv.ErrNotANumber):
		d.Reason = kvdv1.ErrorDetail_NOT_A_NUMBER
		return codes.FailedPrecondition, d
	case errors.Is(err, kv.ErrUnsupported):
		d.Reason = kvdv1.ErrorDetail_UNSUPPORTED
		return codes.Unimplemented, d
	}
	if e, ok := errors.AsType[*kv.InvalidError](err); ok {
		d.Reason, d.Field = kvdv1.ErrorDetail_INVALID, e.Field
		return codes.InvalidArgument, d
	}
	if e, ok := errors.AsType[*kv.CrossShardError](err); ok {
		d.Reason = kvdv1.ErrorDetail_CROSS_SHARD
		for _, s := range e.Shards {
			d.Shards = append(d.Shards, uint64(s))
		}
		return codes.FailedPrecondition, d
	}
	if e, ok := errors.AsType[*kv.OverloadError](err); ok {
		d.Reason, d.RetryAfterMs = kvdv1.ErrorDetail_OVERLOADED, millis(e.RetryAfter)
		return codes.ResourceExhausted, d
	}
	if e, ok := errors.AsType[*kv.DiskFullError](err); ok {
		d.Reason, d.RetryAfterMs = kvdv1.ErrorDetail_DISK_FULL, millis(time.Second)
		d.Leader = uint64(e.Node)
		return codes.ResourceExhausted, d
	}
	if e, ok := errors.AsType[*kv.StaleEpochError](err); ok {
		d.Reason = kvdv1.ErrorDetail_STALE_EPOCH
		for _, x := range e.Descriptors {
			d.Descriptors = append(d.Descriptors, FromDescriptor(x, 0))
		}
		return codes.Unavailable, d
	}
	d.Reason = kvdv1.ErrorDetail_NOT_LEADER
	if e, ok := errors.AsType[*kv.NotLeaderError](err); ok {
		d.Shard, d.Leader = uint64(e.Shard), uint64(e.Leader)
		if address != nil && e.Leader != 0 {
			d.LeaderAddress = address(e.Leader)
		}
	}
	return codes.Unavailable, d
}

// millis rounds a hint up to whole milliseconds.
func millis(d time.Duration) uint32 {
	ms := (max(d, 0) + time.Millisecond - 1) / time.Millisecond
	return uint32(min(ms, math.MaxUint32))
}

// Status gives an error as the status of a call, with the detail, and RetryInfo where another try is worth it.
func Status(p *kvdv1.PipelineError) error {
	s := status.New(codes.Code(p.Code), p.Message)
	if p.Detail == nil {
		return s.Err()
	}
	var with *status.Status
	var err error
	if ms := p.Detail.RetryAfterMs; ms != 0 {
		retry := &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Duration(ms) * time.Millisecond)}
		with, err = s.WithDetails(p.Detail, retry)
	} else {
		with, err = s.WithDetails(p.Detail)
	}
	if err != nil { // Only for the code OK, or a detail that cannot be encoded.
		panic("wire: the detail of an error cannot be encoded: " + err.Error())
	}
	return with.Err()
}

// StatusError is FromError and Status in one.
func StatusError(op Op, err error, address NodeAddress) error {
	return Status(FromError(op, err, address))
}

// FromStatus gives the error of a call as it travels otherwise. An error that is no status, or that carries no
// detail, comes without one. nil gives nil.
func FromStatus(err error) *kvdv1.PipelineError {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		s = status.FromContextError(err)
	}
	return &kvdv1.PipelineError{Code: int32(s.Code()), Message: s.Message(), Detail: detailOf(s)}
}

// Message is what the error of a call says, without the frame that gRPC puts around it.
func Message(err error) string {
	s, ok := status.FromError(err)
	if !ok {
		return err.Error()
	}
	text := s.Message()
	if quoted, ok := strings.CutPrefix(text, "connection error: desc = "); ok {
		if plain, err := strconv.Unquote(quoted); err == nil {
			text = strings.TrimPrefix(strings.TrimPrefix(plain, "transport: "), "Error while dialing: ")
		}
	}
	if s.Code() == codes.DeadlineExceeded || strings.HasPrefix(text, "stream terminated by RST_STREAM with error code: CANCEL") {
		return "no answer in time"
	}
	return text
}

func detailOf(s *status.Status) *kvdv1.ErrorDetail {
	for _, x := range s.Details() {
		if d, ok := x.(*kvdv1.ErrorDetail); ok {
			return d
		}
	}
	return nil
}

// DetailOf gives the kvd detail of a call's error, nil when it has none. It holds what no kv error does: the
// address of the leader.
func DetailOf(err error) *kvdv1.ErrorDetail {
	s, ok := status.FromError(err)
	if !ok {
		return nil
	}
	return detailOf(s)
}

// ToError reads an error that has travelled; nil gives nil. What comes back answers errors.Is and errors.AsType
// as the first one did, and says the same. A write's error without a detail is unknown; a read's is never.
func ToError(op Op, p *kvdv1.PipelineError) error {
	if p == nil {
		return nil
	}
	return ErrorFromDetail(op, codes.Code(p.Code), p.Message, p.Detail)
}

// ErrorFromDetail is ToError for the parts.
func ErrorFromDetail(op Op, code codes.Code, message string, d *kvdv1.ErrorDetail) error {
	if d != nil && d.Outcome == kvdv1.ErrorDetail_NOT_DONE {
		if err := reasonError(message, d); err != nil {
			return said(message, err)
		}
	}
	ended := endOf(code)
	if op == Read || (d != nil && d.Outcome == kvdv1.ErrorDetail_NOT_DONE) {
		if ended != nil {
			return said(message, ended)
		}
		if code == codes.Unavailable { // No kvd node answered: as good as no leader.
			return said(message, &kv.NotLeaderError{})
		}
		return fmt.Errorf("%s (%v)", message, code)
	}
	if ended != nil {
		return said(message, errors.Join(kv.ErrUnknown, ended))
	}
	return said(message, kv.ErrUnknown)
}

// endOf gives the error of a context that a code stands for.
func endOf(code codes.Code) error {
	switch code {
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.Canceled:
		return context.Canceled
	}
	return nil
}

// reasonError gives the error that a not-done detail stands for; nil when it has no reason that is known here.
func reasonError(message string, d *kvdv1.ErrorDetail) error {
	switch d.Reason {
	case kvdv1.ErrorDetail_INVALID:
		return &kv.InvalidError{Field: d.Field, Bound: strings.TrimPrefix(message, d.Field+": ")}
	case kvdv1.ErrorDetail_NOT_LEADER:
		return &kv.NotLeaderError{Shard: kv.ShardID(d.Shard), Leader: kv.NodeID(d.Leader)}
	case kvdv1.ErrorDetail_STALE_EPOCH:
		e := &kv.StaleEpochError{}
		for _, x := range d.Descriptors {
			e.Descriptors = append(e.Descriptors, ToDescriptor(x))
		}
		return e
	case kvdv1.ErrorDetail_NO_MAP:
		return kv.ErrNoMap
	case kvdv1.ErrorDetail_OVERLOADED:
		return &kv.OverloadError{What: "a queue of the node", RetryAfter: time.Duration(d.RetryAfterMs) * time.Millisecond}
	case kvdv1.ErrorDetail_DISK_FULL:
		return &kv.DiskFullError{Node: kv.NodeID(d.Leader)}
	case kvdv1.ErrorDetail_CROSS_SHARD:
		e := &kv.CrossShardError{}
		for _, s := range d.Shards {
			e.Shards = append(e.Shards, kv.ShardID(s))
		}
		return e
	case kvdv1.ErrorDetail_NOT_A_NUMBER:
		return kv.ErrNotANumber
	case kvdv1.ErrorDetail_STOPPING:
		return kv.ErrStopping
	case kvdv1.ErrorDetail_UNSUPPORTED:
		return kv.ErrUnsupported
	}
	return nil
}

// saidError is an error of the vocabulary in the words in which another node put it.
type saidError struct {
	message string
	err     error
}

func (e *saidError) Error() string { return e.message }
func (e *saidError) Unwrap() error { return e.err }

func said(message string, err error) error {
	if message == "" || err.Error() == message {
		return err
	}
	return &saidError{message: message, err: err}
}
