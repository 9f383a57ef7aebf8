package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kvdstore/kvd/kv"
)

const (
	// benchstat compares two files of benchmarks; pinned, so that a comparison means the same next year.
	benchstat = "golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da"
	// countMax bounds how often each benchmark is run.
	countMax = 1000
)

// micro is what microCommand was asked for.
type micro struct {
	packages      []string
	bench         string
	count         int
	each          time.Duration
	save, against string
}

func parseMicro(args []string) (*micro, error) {
	m := &micro{}
	f := pflag.NewFlagSet("bench micro", pflag.ContinueOnError)
	f.StringSliceVar(&m.packages, "packages", []string{"./..."}, "packages whose benchmarks are run; those without any take no time")
	f.StringVar(&m.bench, "bench", ".", "benchmarks, as go test -bench takes it")
	f.IntVar(&m.count, "count", 6, "how often each is run: below six benchstat can tell little")
	f.DurationVar(&m.each, "benchtime", time.Second, "of each, 1ms to 1h")
	f.StringVar(&m.save, "save", "", "file that the results are saved in")
	f.StringVar(&m.against, "against", "", "file of an earlier run to compare with")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	return m, errors.Join(noMore(f.Args()), m.check())
}

// check tells of everything that is wrong at once.
func (m *micro) check() error {
	var errs []error
	if len(m.packages) == 0 {
		errs = append(errs, &kv.InvalidError{Field: "packages", Bound: "at least one"})
	}
	if m.count < 1 || m.count > countMax {
		errs = append(errs, &kv.InvalidError{Field: "count", Bound: fmt.Sprintf("1 to %d, is %d", countMax, m.count)})
	}
	if m.each < time.Millisecond || m.each > time.Hour {
		errs = append(errs, &kv.InvalidError{Field: "benchtime", Bound: fmt.Sprintf("1ms to 1h, is %v", m.each)})
	}
	if m.against != "" {
		if _, err := os.Stat(m.against); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// microCommand runs the benchmarks of the packages, one package after the other, and compares.
func microCommand(ctx context.Context, args []string, out io.Writer) error {
	m, err := parseMicro(args)
	if err != nil {
		return err
	}
	withBenchmarks, err := m.find(ctx)
	if err != nil {
		return err
	}
	var results bytes.Buffer
	run := exec.CommandContext(ctx, "go", append([]string{
		"test", "-p", "1", "-run", "^$", "-bench", m.bench, "-benchmem", "-count", fmt.Sprint(m.count), "-benchtime", m.each.String(),
	}, withBenchmarks...)...)
	run.Stdout, run.Stderr = io.MultiWriter(out, &results), os.Stderr
	if err := run.Run(); err != nil {
		return fmt.Errorf("go test: %w", err)
	}
	return m.finish(ctx, results.Bytes(), out)
}

// find gives those of the packages that have benchmarks: to build the tests of all others would take minutes.
func (m *micro) find(ctx context.Context) ([]string, error) {
	const form = "{{.ImportPath}}\t{{.Dir}}{{range .TestGoFiles}}\t{{.}}{{end}}{{range .XTestGoFiles}}\t{{.}}{{end}}"
	text, err := exec.CommandContext(ctx, "go", append([]string{"list", "-f", form}, m.packages...)...).Output()
	if err != nil {
		if failed, ok := errors.AsType[*exec.ExitError](err); ok {
			return nil, fmt.Errorf("go list: %s", failed.Stderr)
		}
		return nil, fmt.Errorf("go list: %w", err)
	}
	var list []string
	for line := range strings.Lines(string(text)) {
		part := strings.Split(strings.TrimSpace(line), "\t")
		has, err := anyBenchmark(part[1], part[2:])
		if err != nil {
			return nil, err
		}
		if has {
			list = append(list, part[0])
		}
	}
	if len(list) == 0 {
		return nil, &kv.InvalidError{Field: "packages", Bound: fmt.Sprintf("some with benchmarks; %v have none", m.packages)}
	}
	return list, nil
}

func anyBenchmark(dir string, files []string) (bool, error) {
	for _, name := range files {
		code, err := os.ReadFile(dir + "/" + name)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(strings.Split(string(code), "\n"), func(line string) bool { return strings.HasPrefix(line, "func Benchmark") }) {
			return true, nil
		}
	}
	return false, nil
}

// finish saves the results and compares them with the earlier ones.
func (m *micro) finish(ctx context.Context, results []byte, out io.Writer) (err error) {
	name := m.save
	if name == "" {
		f, err := os.CreateTemp("", "kvd-bench-*.txt")
		if err != nil {
			return err
		}
		name = f.Name()
		defer func() { _ = os.Remove(name) }()
		if err := f.Close(); err != nil {
			return err
		}
	}
	if err := os.WriteFile(name, results, 0o644); err != nil || m.against == "" {
		return err
	}
	compare := exec.CommandContext(ctx, "go", "run", benchstat, "before="+m.against, "now="+name)
	compare.Stdout, compare.Stderr = out, os.Stderr
	if err := compare.Run(); err != nil {
		return fmt.Errorf("benchstat: %w", err)
	}
	return nil
}
