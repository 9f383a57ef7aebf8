package client

import (
	"errors"

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

// mark makes an error tell of its outcome: a read changes nothing, so it is always not done.
func mark(read bool, err error) error {
	switch {
	case err == nil:
		return nil
	case read || kv.OutcomeOf(err) == kv.NotDone && !errors.Is(err, kv.ErrUnknown):
		return notDone{err}
	}
	return unknown{err}
}
