package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

// foundTick is how often the others are asked again, and foundReport how often the log names who is missing,
// from the first time on.
const (
	foundTick        = 250 * time.Millisecond
	foundReportFirst = time.Second
	foundReport      = 5 * time.Second
)

// Founding runs a Founder: it syncs its records, sends its requests and answers those of others, also after this node
// takes part, since others may come later.
type Founding struct {
	// Write makes a record durable.
	Write func(*kvdv1.StoreRecord) error
	// Ask sends a request to an address.
	Ask    func(ctx context.Context, address string, r *kvdv1.FoundRequest) (*kvdv1.FoundResponse, error)
	Logger *slog.Logger

	mu      sync.Mutex
	founder *Founder
	err     error // Of the disk.
	news    chan struct{}
	asking  sync.WaitGroup
}

// NewFounding starts with a Founder.
func NewFounding(f *Founder, write func(*kvdv1.StoreRecord) error, logger *slog.Logger) *Founding {
	return &Founding{founder: f, Write: write, Logger: logger, news: make(chan struct{}, 1)}
}

// step does f on the founder, syncs what it wants synced, and wakes Run, which alone takes the requests to be sent.
func (r *Founding) step(f func(*Founder)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return
	}
	f(r.founder)
	for record := r.founder.Unsynced(); record != nil; record = r.founder.Unsynced() {
		if r.err = r.Write(record); r.err != nil {
			break
		}
		r.founder.Synced()
	}
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// Run goes through the founding and gives the record of a node that takes part.
func (r *Founding) Run(ctx context.Context) (*kvdv1.StoreRecord, error) {
	ctx, cancel := context.WithCancel(ctx)
	// What is asked ends before the data directory is given up.
	defer r.asking.Wait()
	defer cancel()
	tick, report := time.NewTicker(foundTick), time.NewTicker(foundReportFirst)
	defer tick.Stop()
	defer report.Stop()
	r.step(func(*Founder) {})
	for {
		if done, err := r.state(); done != nil || err != nil {
			return done, err
		}
		r.send(ctx)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
			r.step((*Founder).Tick)
		case <-report.C:
			r.report()
			report.Reset(foundReport)
		case <-r.news:
		}
	}
}

func (r *Founding) state() (*kvdv1.StoreRecord, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.err != nil:
		return nil, fmt.Errorf("write the data directory's record: %w", r.err)
	case r.founder.Err() != nil:
		return nil, r.founder.Err()
	}
	return r.founder.Done(), nil
}

func (r *Founding) report() {
	r.mu.Lock()
	missing := r.founder.Missing()
	r.mu.Unlock()
	if len(missing) > 0 {
		r.Logger.Info("the founding waits for other nodes", "missing", strings.Join(missing, "; "))
	}
}

// send sends the requests that the founder has, each in a goroutine that ends with ctx and that Run waits for.
func (r *Founding) send(ctx context.Context) {
	r.mu.Lock()
	sends := r.founder.Sends()
	r.mu.Unlock()
	for _, s := range sends {
		r.asking.Go(func() {
			asking, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			resp, err := r.Ask(asking, s.To.Address, s.Request)
			r.step(func(f *Founder) {
				if err != nil {
					f.Failed(s, err)
				} else {
					f.Response(s, resp)
				}
			})
		})
	}
}

// Answer answers a request of another node.
func (r *Founding) Answer(_ context.Context, req *kvdv1.FoundRequest) (*kvdv1.FoundResponse, error) {
	r.step(func(f *Founder) { f.Request(req) })
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil, r.err
	}
	return r.founder.Answer(req), nil
}

// Join answers who asks to join a cluster that is being founded.
func (r *Founding) Join(*kvdv1.JoinRequest) error { return errors.New("takes no part yet") }

// Replace takes over a record that the node itself has made durable.
func (r *Founding) Replace(record *kvdv1.StoreRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.founder.Replace(record)
}
