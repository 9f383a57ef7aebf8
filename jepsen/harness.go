package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kvdstore/kvd/jepsen/cluster"
	"github.com/kvdstore/kvd/jepsen/nemesis"
	"github.com/kvdstore/kvd/kv"
)

// harness is what runs have in common.
type harness struct {
	*settings
	binaries   map[string]string // By tags.
	namespaced bool
}

// testTag builds a kvd whose clock and disk can be tampered with.
const testTag = "kvdtest"

func newHarness(ctx context.Context, s *settings) (*harness, error) {
	h := &harness{settings: s, binaries: map[string]string{}}
	if err := h.openOut(); err != nil {
		return nil, err
	}
	removed, err := cluster.Clean()
	if len(removed) > 0 {
		say("removed what an earlier run has left: %s", strings.Join(removed, ", "))
	}
	if err != nil {
		say("what an earlier run has left could not be removed: %v", err)
	}
	if s.namespaces != "off" {
		err := cluster.Available(ctx)
		if err != nil && s.namespaces == "on" {
			return nil, err
		}
		if h.namespaced = err == nil; err != nil {
			say("without namespaces, by the proxy on loopback: %v", err)
		}
	}
	return h, nil
}

func (h *harness) openOut() error {
	var err error
	if h.out == "" {
		h.out, err = os.MkdirTemp("", "kvd-jepsen-")
		return err
	}
	if err := os.MkdirAll(h.out, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(h.out)
	if err == nil && len(entries) > 0 {
		err = &kv.InvalidError{Field: "out", Bound: fmt.Sprintf("a new or empty directory; %s has %s", h.out, entries[0].Name())}
	}
	return err
}

// tagsFor are the build tags of the kvd for some faults.
func (h *harness) tagsFor(faults []string) []string {
	tags := slices.Clone(h.tags)
	if nemesis.NeedsTestBuild(faults) && !slices.Contains(tags, testTag) {
		tags = append(tags, testTag)
	}
	return tags
}

// binary gives the kvd for some faults, built once.
func (h *harness) binary(ctx context.Context, faults []string) (string, error) {
	tags := h.tagsFor(faults)
	key := strings.Join(tags, ",")
	if b := h.binaries[key]; b != "" {
		return b, nil
	}
	dir := filepath.Join(h.out, "bin", strings.ReplaceAll(strings.Join(append([]string{"kvd"}, tags...), "-"), "/", "-"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	b, err := cluster.Build(ctx, dir, tags)
	if err == nil {
		h.binaries[key] = b
	}
	return b, err
}

// one makes the run of the flags.
func (h *harness) one(ctx context.Context) error {
	r := row{workload: h.workload, faults: h.faults, nodes: h.nodes, length: h.length, rate: h.rate, processes: h.processes, keys: h.keys, shards: h.shards, idle: h.idle, seed: h.seed, dir: h.out, hasty: h.hasty}
	result, err := h.run(ctx, r)
	if err != nil {
		return errors.Join(err, fmt.Errorf("logs: %s", h.out))
	}
	result.print(os.Stdout)
	say("report, history and logs: %s", h.out)
	if !result.Valid {
		return fmt.Errorf("%w: %s", errInvalid, strings.Join(result.Reasons, "; "))
	}
	return nil
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "jepsen: "+format+"\n", args...) }
