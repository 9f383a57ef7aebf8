package client

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// ErrNotDone is what errors.Is finds in an error of something that was not done and never will be: it may be repeated.
var ErrNotDone = errors.New("not done")

// ErrUnknown is what errors.Is finds in an error of a write that may have been done, or may still be.
var ErrUnknown = kv.ErrUnknown

// notDone marks an error.
type notDone struct{ error }

func (e notDone) Is(target error) bool { return target == ErrNotDone }
func (e notDone) Unwrap() error        { return e.error }

// unknown marks the error of a write.
type unknown struct{ error }

func (e unknown) Is(target error) bool { return target == ErrUnknown }
func (e unknown) Unwrap() error        { return e.error }

// lostError tells that a node was not reached, that its connection broke, or that it did not answer in time.
type lostError struct {
	address string
	err     error
}

func (e *lostError) Error() string {
	return "the node at " + e.address + ": " + wire.Message(e.err)
}

func (e *lostError) Unwrap() error { return e.err }

// Is finds the end of a context, which gRPC gives as a code.
func (e *lostError) Is(target error) bool {
	switch target {
	case context.DeadlineExceeded:
		return status.Code(e.err) == codes.DeadlineExceeded
	case context.Canceled:
		return status.Code(e.err) == codes.Canceled
	}
	return false
}
