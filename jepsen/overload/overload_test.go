package overload

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/kvdstore/kvd/internal/wait"
)

// server does so many operations at a time, each in a time, and refuses what is more.
type server struct {
	places chan struct{}
	takes  time.Duration
	refuse error
}

func (s *server) do(ctx context.Context, _ int) error {
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
		return wait.For(ctx, s.takes)
	default:
		return s.refuse
	}
}

func refused(t *testing.T, hint time.Duration) error {
	s, err := status.New(codes.ResourceExhausted, "enough").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(hint)})
	require.NoError(t, err)
	return s.Err()
}

func run(t *testing.T, s *server) (f *Figures) {
	synctest.Test(t, func(t *testing.T) {
		var err error
		f, err = Run(t.Context(), Config{Do: s.do, Measure: 2 * time.Second, Storm: 4 * time.Second})
		require.NoError(t, err)
	})
	return f
}

// TestStorm: a server that does what it can and refuses the rest stands it, and the figures are those of its making.
func TestStorm(t *testing.T) {
	s := &server{places: make(chan struct{}, 200), takes: 200 * time.Millisecond, refuse: refused(t, 50*time.Millisecond)}
	f := run(t, s)
	require.InDelta(t, 640, f.Capacity, 70)
	require.InDelta(t, 5*f.Capacity, f.Offered, 100)
	require.InDelta(t, 1000, f.Done, 100)
	require.InDelta(t, f.Offered-f.Done, f.Refused, 100)
	require.Equal(t, 200*time.Millisecond, f.AcceptedP99)
	require.Zero(t, f.Other+f.Unbegun+f.Hintless)
	require.Empty(t, f.Reasons())
}

// TestReasons: each of these is told.
func TestReasons(t *testing.T) {
	hint := refused(t, time.Millisecond)
	for want, s := range map[string]*server{
		"had no hint":            {places: make(chan struct{}, 200), takes: 200 * time.Millisecond, refuse: refused(t, 0)},
		"neither done nor":       {places: make(chan struct{}, 200), takes: 200 * time.Millisecond, refuse: errors.New("what?")},
		"of what was accepted":   nil,
		"nothing was refused":    {places: make(chan struct{}, 20000), takes: 200 * time.Millisecond, refuse: hint},
		"a second were done aft": nil,
		"counts as at once":      nil,
	} {
		var f *Figures
		switch {
		case s != nil:
			f = run(t, s)
		case want == "of what was accepted":
			f = &Figures{Capacity: 1, After: 1, Refused: 1, AcceptedP99: 3 * time.Second}
		case want == "counts as at once":
			f = &Figures{Capacity: 1, After: 1, Refused: 1, RefusedP99: time.Second}
		default:
			f = &Figures{Capacity: 100, After: 79, Refused: 1}
		}
		require.Contains(t, strings.Join(f.Reasons(), "\n"), want)
	}
}

// TestTooSlow: a storm that is none is no verdict.
func TestTooSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{places: make(chan struct{}, 40000), takes: 60 * time.Second, refuse: refused(t, time.Millisecond)}
		var slow atomic.Bool
		do := func(ctx context.Context, n int) error {
			if !slow.Load() {
				return wait.For(ctx, 10*time.Millisecond)
			}
			return s.do(ctx, n)
		}
		time.AfterFunc(4500*time.Millisecond, func() { slow.Store(true) })
		_, err := Run(t.Context(), Config{Do: do, Measure: 2 * time.Second, Storm: 4 * time.Second})
		require.ErrorIs(t, err, ErrTooSlow)
	})
	_, err := Run(t.Context(), Config{})
	require.ErrorContains(t, err, "measure")
	require.ErrorContains(t, err, "storm")
}
