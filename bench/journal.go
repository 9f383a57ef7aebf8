package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/kvdstore/kvd/bench/report"
)

// journal is where runs go: a line each for people and in a file. It also has the directory of the servers' data.
type journal struct {
	told io.Writer
	// data is an absolute path, and gone at the end unless something failed.
	data   string
	file   *os.File
	runs   []*report.Run
	failed []error
}

// openJournal makes a directory with a file of runs, and one for the servers in it.
func openJournal(dir, file string, told io.Writer) (*journal, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	data, err := os.MkdirTemp(dir, "data-")
	if err != nil {
		return nil, err
	}
	j := &journal{told: told}
	if j.data, err = filepath.Abs(data); err != nil {
		return nil, err
	}
	j.file, err = os.Create(filepath.Join(dir, file))
	return j, err
}

func (j *journal) say(format string, args ...any) { _, _ = fmt.Fprintf(j.told, format+"\n", args...) }

// close ends the file, and removes the servers' data unless something failed or they are to be kept.
func (j *journal) close(keep bool, err error) error {
	err = errors.Join(append(j.failed, err, j.file.Close())...)
	if err != nil || keep {
		j.say("data and logs of the servers: %s", j.data)
		return err
	}
	return os.RemoveAll(j.data)
}

// one runs a trial and takes it down. One that fails is told of at the end; others go on.
func (j *journal) one(ctx context.Context, t *trial, name, system string, round int) error {
	r, err := t.run(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		j.fail(fmt.Errorf("%s of %s, round %d: %w", name, system, round, err))
		return nil
	}
	r.System, r.Case, r.Round = system, name, round
	j.runs = append(j.runs, r)
	j.say("%-18s round %d  %-13s %9.0f/s  p50 %8.3f  p99 %8.3f ms  errors %v", name, round, system, r.PerSecond, r.Latency.P50, r.Latency.P99, r.Errors)
	return r.Write(j.file)
}

// fail notes what does not keep the rest from going on.
func (j *journal) fail(err error) {
	j.say("%v", err)
	j.failed = append(j.failed, err)
}
