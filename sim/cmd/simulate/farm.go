package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"time"
)

// farm runs seeds in processes.
type farm struct {
	workers int
	// limit is how long a seed may take.
	limit time.Duration
	// worker makes the command of a worker.
	worker func(context.Context) *exec.Cmd
}

// progressEvery is the time between two lines that tell how far it is.
const progressEvery = 5 * time.Second

// run runs all seeds and tallies what came of them. It fails if workers cannot be started. When ctx ends, seeds under way
// are given up: they count as not run.
func (f *farm) run(ctx context.Context, s *seeds, t *tally) error {
	defer s.stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make(chan result)
	var tended sync.WaitGroup
	for range f.workers {
		tended.Go(func() {
			if err := f.tend(ctx, s, results); err != nil {
				cancel(err)
			}
		})
	}
	go func() { // It ends with the workers, which this waits for.
		tended.Wait()
		close(results)
	}()
	progress := time.NewTicker(progressEvery)
	defer progress.Stop()
	for {
		select {
		case r, more := <-results:
			if !more {
				if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
					return err
				}
				return nil
			}
			if t.add(r); t.full() {
				s.stop()
			}
		case <-progress.C:
			t.progress()
		}
	}
}

// tend keeps one worker busy, and replaces it when it dies.
func (f *farm) tend(ctx context.Context, s *seeds, results chan<- result) error {
	var p *process
	defer func() {
		if p != nil {
			p.end()
		}
	}()
	for {
		seed, ok := s.take()
		if !ok {
			return nil
		}
		if p == nil {
			var err error
			if p, err = start(f.worker(ctx)); err != nil {
				return fmt.Errorf("start a worker: %w", err)
			}
		}
		r, alive := p.run(seed, f.limit)
		if ctx.Err() != nil {
			return nil
		}
		if !alive {
			p.end()
			p = nil
		}
		results <- r
	}
}

// process is a worker.
type process struct {
	command *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	told    head
}

func start(command *exec.Cmd) (*process, error) {
	p := &process{command: command}
	var err error
	if p.in, err = command.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	command.Stderr = &p.told
	return p, command.Start()
}

// run runs a seed. A worker that is not alive any more has to be ended.
func (p *process) run(seed uint64, limit time.Duration) (r result, alive bool) {
	late := time.AfterFunc(limit, func() { _ = p.command.Process.Kill() })
	r, err := p.ask(seed)
	inTime := late.Stop()
	switch {
	case err == nil && inTime:
		return r, true
	case err == nil: // It was done at the last moment; the worker is killed.
		return r, false
	case inTime:
		return result{Seed: seed, Error: fmt.Sprintf("the worker died: %v: %s", cmp.Or(p.wait(), err), p.told.String())}, false
	default:
		return result{Seed: seed, Error: fmt.Sprintf("no end within %v", limit)}, false
	}
}

func (p *process) ask(seed uint64) (r result, err error) {
	p.told.reset()
	if _, err := fmt.Fprintln(p.in, seed); err != nil {
		return r, err
	}
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return r, err
	}
	if r.Seed != seed {
		return r, fmt.Errorf("it answered for seed %d", r.Seed)
	}
	return r, nil
}

// wait waits for the end of a worker that has closed its output, or makes no sense.
func (p *process) wait() error {
	_ = p.in.Close()
	_ = p.command.Process.Kill()
	return p.command.Wait()
}

// end lets an idle worker go.
func (p *process) end() {
	_ = p.in.Close()
	_ = p.command.Wait()
}

// headMax bounds what is kept of what a worker says on standard error while it runs a seed, in bytes: a crash begins with
// its cause.
const headMax = 16 << 10

type head struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (h *head) Write(text []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text.Write(text[:min(len(text), headMax-h.text.Len())])
	return len(text), nil
}

func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.String()
}

func (h *head) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text.Reset()
}
