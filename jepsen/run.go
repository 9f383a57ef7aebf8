package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/jepsen/cluster"
	"github.com/kvdstore/kvd/jepsen/nemesis"
	"github.com/kvdstore/kvd/jepsen/workload"
	"github.com/kvdstore/kvd/kv"
)

const (
	// clientsCount is how many clients the processes of a workload share, besides the operator's.
	clientsCount = 5
	// shardsBefore is how many shards the keys of a workload are cut into from the start, unless the row says otherwise.
	shardsBefore = 4
	// operationMax bounds an operation, setupMax the set-up, and readBackMax the reading at the end.
	operationMax = 5 * time.Second
	setupMax     = time.Minute
	readBackMax  = 2 * time.Minute
	// skewSlack is what clocks of one machine may differ by without a fault, as operations see it; skewMost is by how much they may
	// differ with steps, and skewExpiry where keys expire.
	skewSlack, skewExpiry, skewMost = 500 * time.Millisecond, 2 * time.Second, time.Hour
	// nodeMemory is what each node may use.
	nodeMemory = "256MiB"
	// nodesDir is where a run's nodes keep their data and logs.
	nodesDir = "nodes"
	// prefix begins all keys.
	prefix = "jepsen/"
)

// clusterSettings make a cluster check itself often, and do with little disk.
var clusterSettings = map[string]string{"checksum-interval": "3s", "disk-reserve": "67108864"}

// hastySettings have followers that are behind get snapshots, and shards sleep.
var hastySettings = map[string]string{"log-keep": "16", "sleep-after": "1s"}

// trial is a run under way.
type trial struct {
	row
	h        *harness
	cluster  *cluster.Cluster
	recorder *check.Recorder
	operator *client.Client
	clients  []*client.Client
	workload *workload.Run
	nemesis  *nemesis.Nemesis
	began    time.Time
	// whole tells what went wrong when the cluster was to be whole again.
	whole error
	// uneven tells of replicas that were missing long after that.
	uneven []string
}

// run makes a run. An error means that there is no verdict.
func (h *harness) run(ctx context.Context, r row) (*result, error) {
	binary, err := h.binary(ctx, r.faults)
	if err != nil {
		return nil, err
	}
	t := &trial{row: r, h: h, recorder: check.NewRecorder(), began: time.Now()}
	if err := t.start(ctx, binary); err != nil {
		return t.broken(ctx, unbegun{err})
	}
	defer func() { _ = t.stop() }() // The one below is heard; Stop may be called twice.
	if err := t.prepare(ctx); err != nil {
		return t.broken(ctx, unbegun{err})
	}
	if err := t.work(ctx); err != nil {
		return t.broken(ctx, err)
	}
	if err := t.stop(); err != nil && t.whole == nil {
		t.whole = err
	}
	return t.judge()
}

// unbegun is why a run did not come to its load. What comes after is not done again: that would hide what came of it.
type unbegun struct{ error }

// broken is what becomes of a run that was not finished: none, or an invalid one if a node cried out, or ended by itself once the
// cluster was ready.
func (t *trial) broken(ctx context.Context, err error) (*result, error) {
	var list []string
	if t.cluster != nil {
		list = first(t.cluster.Surprises())
	}
	logs, _ := filepath.Glob(filepath.Join(t.dir, nodesDir, "*.log")) // The pattern is a good one.
	list = append(list, first(outcries(logs))...)
	if len(list) == 0 || ctx.Err() != nil {
		return nil, err
	}
	r := &result{
		Workload: t.row.workload, Faults: t.faults, Nodes: t.nodes, Seed: t.seed, Namespaces: t.h.namespaced, Began: t.began.UTC().Truncate(time.Second),
		Command: t.row.command(t.h.tags), Wrong: list, Reasons: append(slices.Clone(list), err.Error()),
	}
	return r, nil
}

func (t *trial) start(ctx context.Context, binary string) error {
	if err := os.MkdirAll(t.dir, 0o755); err != nil {
		return err
	}
	cuts := filepath.Join(t.dir, "cuts")
	keys := append(workload.Cuts(prefix, t.shards), idleCuts(t.idle)...)
	if err := os.WriteFile(cuts, []byte(strings.Join(keys, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	var err error
	t.cluster, err = cluster.Start(ctx, cluster.Config{
		Nodes: t.nodes, Dir: filepath.Join(t.dir, nodesDir), Binary: binary, Namespaces: t.h.namespaced, Proxied: nemesis.NeedsProxy(t.faults),
		TestBuild: slices.Contains(t.h.tagsFor(t.faults), testTag),
		Flags:     t.flags(cuts),
		Ended: func(n *cluster.Node, why string) {
			t.recorder.Record(check.Event{Process: check.Nemesis, Type: check.Info, F: "died", Node: n.Name()}, map[string]any{"phase": "once", "why": why})
		},
	})
	return err
}

// idleCuts are keys above all of a workload's, at which to cut the cluster's shards so that there are so many more.
func idleCuts(shards int) (cuts []string) {
	for i := range shards {
		cuts = append(cuts, fmt.Sprintf("%s%03d", kv.PrefixSpan([]byte(prefix)).End, i))
	}
	return cuts
}

// flags are those of every node.
func (t *trial) flags(cuts string) []string {
	list := []string{"--memory", nodeMemory, "--initial-shards", cuts}
	if n := nemesis.NeedsReplicas(t.faults); n > 0 {
		list = append(list, "--replicas", fmt.Sprint(n))
	}
	return list
}

// client makes a client of the cluster.
func (t *trial) client() (*client.Client, error) {
	return client.New(client.Config{Endpoints: t.cluster.Endpoints(), DialOptions: t.cluster.ClientOptions()})
}

func (t *trial) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, setupMax)
	defer cancel()
	var err error
	if t.operator, err = t.client(); err != nil {
		return err
	}
	for range clientsCount {
		c, err := t.client()
		if err != nil {
			return err
		}
		t.clients = append(t.clients, c)
	}
	wanted := maps.Clone(clusterSettings)
	if slices.Contains(t.faults, "flip") {
		wanted["dead-after"] = "8s" // One that is lost is replaced within the run.
	}
	if t.hasty {
		maps.Copy(wanted, hastySettings)
	}
	for name, value := range wanted {
		if _, err := t.operator.SetSetting(ctx, name, value); err != nil {
			return fmt.Errorf("setting %s: %w", name, err)
		}
	}
	t.workload, err = workload.New(workload.Config{
		Name: t.row.workload, Prefix: prefix, Seed: t.seed, Processes: t.processes, Rate: t.rate, Timeout: operationMax, Clients: t.clients, Recorder: t.recorder,
		Skew: t.skew(), Keys: t.keys,
	})
	if err != nil {
		return err
	}
	if err := t.workload.Setup(ctx); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	t.nemesis = nemesis.New(nemesis.Config{
		Cluster: t.cluster, Operator: t.operator, Recorder: t.recorder, Span: t.workload.Span(), Idle: kv.Span{Start: t.workload.Span().End}, Nodes: t.nodes,
		Rounds: t.schedule(), Quiet: t.pace().QuietMin, Skew: max(t.skew()-skewSlack, 0),
	})
	return nil
}

// skew is by how much the nodes' clocks may differ from the one here. Where keys expire, more would only show that clocks count.
func (t *trial) skew() time.Duration {
	switch {
	case !slices.Contains(t.faults, "clock"):
		return skewSlack
	case t.row.workload == "expiry":
		return skewExpiry
	}
	return skewMost
}

// work drives the workload under faults, heals and reads everything back.
func (t *trial) work(ctx context.Context) error {
	working, cancel := context.WithTimeout(ctx, t.length)
	defer cancel()
	var both sync.WaitGroup
	var driven, injected error
	both.Go(func() { driven = t.workload.Drive(working) })
	both.Go(func() { injected = t.nemesis.Run(working) })
	<-working.Done()
	both.Wait()
	if err := errors.Join(driven, ctx.Err()); err != nil {
		return err
	}
	t.whole = errors.Join(injected, t.nemesis.Heal(ctx))
	if t.whole == nil {
		reading, cancel := context.WithTimeout(ctx, readBackMax)
		defer cancel()
		t.whole = t.workload.ReadBack(reading)
		t.uneven = t.level(ctx)
	}
	return ctx.Err()
}

// stop ends clients and nodes; it may be called twice.
func (t *trial) stop() error {
	for _, c := range append(t.clients, t.operator) {
		if c != nil {
			_ = c.Close()
		}
	}
	if t.cluster == nil {
		return nil
	}
	return t.cluster.Stop()
}

// judge makes the verdict and leaves the files.
func (t *trial) judge() (*result, error) {
	events := t.recorder.Events()
	if err := write(filepath.Join(t.dir, "history.jsonl"), func(f *bufio.Writer) error { return check.WriteEvents(f, events) }); err != nil {
		return nil, err
	}
	verdict, err := workload.Judge(t.row.workload, events)
	if err != nil {
		return nil, err
	}
	r, err := t.result(verdict, events)
	if err != nil {
		return nil, err
	}
	if err := t.leave(r, verdict, events); err != nil {
		return nil, err
	}
	if r.Valid && !t.h.keep {
		err = t.removeData()
	}
	return r, err
}

// removeData removes what nodes kept; their logs stay.
func (t *trial) removeData() error {
	var errs []error
	for _, n := range t.cluster.Nodes() {
		errs = append(errs, os.RemoveAll(n.DataDir()))
	}
	return errors.Join(errs...)
}

// write writes a file by a buffer.
func write(name string, f func(*bufio.Writer) error) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(file)
	return errors.Join(f(w), w.Flush(), file.Close())
}

// cries are words in a node's log that no run may leave.
var cries = []string{"panic:", "fatal error:", "DATA RACE", "differs from the majority"}

// logs are the files that the nodes' logs are in.
func logs(c *cluster.Cluster) (files []string) {
	for _, n := range c.Nodes() {
		files = append(files, n.Log())
	}
	return files
}

// outcries are lines of logs with such words.
func outcries(files []string) (list []string) {
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			list = append(list, err.Error())
			continue
		}
		for line := range bytes.Lines(text) {
			for _, c := range cries {
				if bytes.Contains(line, []byte(c)) {
					list = append(list, fmt.Sprintf("%s: %s", file, bytes.TrimSpace(line)))
				}
			}
		}
	}
	return list
}
