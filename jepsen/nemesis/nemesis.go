package nemesis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/internal/wait"
	"github.com/kvdstore/kvd/jepsen/cluster"
	"github.com/kvdstore/kvd/kv"
)

const (
	// wholeMax is how long the cluster may take to be whole after a round.
	wholeMax = 45 * time.Second
	// overMax bounds what ends by itself.
	overMax = 30 * time.Second
	// lookEvery is the time between two looks at something that is waited for.
	lookEvery = 100 * time.Millisecond
)

// Config is what a Nemesis needs.
type Config struct {
	Cluster *cluster.Cluster
	// Operator is the client that operators' changes are made with. Nobody else may use it.
	Operator *client.Client
	Recorder *check.Recorder
	// Span holds the keys of the workload: shards of these are changed.
	Span kv.Span
	// Idle holds keys that the workload does not have, and whole shards of such if there are any.
	Idle   kv.Span
	Rounds []Round
	// Quiet is the least between two rounds.
	Quiet time.Duration
	// Nodes is how many there are to be, as far as it is up to the faults.
	Nodes int
	// Skew is by how much clocks are stepped at most.
	Skew time.Duration
}

// Nemesis is a run's faults.
type Nemesis struct {
	Config
	view  *view
	heard map[told]bool // Of the cluster's events; for the watch alone.

	mu       sync.Mutex // Guards the rest.
	injected map[string]int
	skipped  []string          // Faults that could not be, with the reasons.
	broken   map[string]error  // By name: those that nothing but an error kept from being.
	goals    map[uint64]bool   // That operators have set here.
	draining map[string]uint64 // Nodes that a drain was begun of: their ids.
	bent     map[string]rules  // Of messages, by the fault.
	damaged  *cluster.Node     // It has flipped bits; nil if none has.
}

// New readies the faults of a run.
func New(c Config) *Nemesis {
	return &Nemesis{Config: c, view: &view{}, heard: map[told]bool{}, injected: map[string]int{}, broken: map[string]error{}, goals: map[uint64]bool{}, draining: map[string]uint64{}, bent: map[string]rules{}}
}

// Run injects the faults until the context ends, and then undoes those that last. An error is a cluster that did not become
// whole again between two rounds.
func (n *Nemesis) Run(ctx context.Context) error {
	began := time.Now()
	looking, stop := context.WithCancel(context.WithoutCancel(ctx))
	var looks sync.WaitGroup
	looks.Go(func() { n.watch(looking) })
	defer looks.Wait()
	defer stop()
	for _, r := range n.Rounds {
		if wait.For(ctx, time.Until(began.Add(r.At))) != nil {
			break
		}
		n.round(ctx, r)
		if err := n.whole(ctx); err != nil {
			return fmt.Errorf("after a round of faults: %w", err)
		}
		if wait.For(ctx, n.Quiet) != nil {
			break
		}
	}
	<-ctx.Done()
	return nil
}

// Injected counts the faults by name.
func (n *Nemesis) Injected() map[string]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.injected)
}

// Skipped tells of the faults that could not be when their time had come, and why.
func (n *Nemesis) Skipped() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.skipped)
}

// Missed tells what of the faults that were asked for never was, so that the run shows nothing of it: all of them, or one that
// an error of the harness kept from being each time. That nothing fits one of many at the moment, or that the cluster refuses it, is none.
func (n *Nemesis) Missed(asked []string) (list []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(n.broken)) {
		if n.injected[name] == 0 {
			list = append(list, fmt.Sprintf("%s could not be injected: %v", name, n.broken[name]))
		}
	}
	if len(list) == 0 && len(asked) > 0 && len(n.injected) == 0 {
		list = append(list, fmt.Sprintf("none of the faults was injected: %s", strings.Join(asked, ", ")))
	}
	return list
}

// missed notes that a fault could not be.
func (n *Nemesis) missed(fault, name string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.skipped = append(n.skipped, fault+": "+err.Error())
	if k, _ := find(fault); !k.asks && !errors.Is(err, errNobody) {
		n.broken[name] = err
	}
}

// whole waits until all members are ready.
func (n *Nemesis) whole(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	if err := n.inspect(ctx); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, wholeMax)
	defer cancel()
	if err := n.Cluster.AwaitReady(limited); err != nil {
		return fmt.Errorf("the cluster is not whole: %w", err)
	}
	return nil
}

// Heal undoes all that lasts, and waits until the cluster is whole.
func (n *Nemesis) Heal(ctx context.Context) error {
	err := n.Cluster.Heal()
	for _, m := range n.Cluster.Members() {
		err = errors.Join(err, m.Untamper())
	}
	n.mu.Lock()
	draining := maps.Clone(n.draining)
	n.mu.Unlock()
	whole := n.whole(ctx)
	for name, id := range draining {
		err = errors.Join(err, n.undrain(ctx, name, id))
	}
	return errors.Join(err, whole)
}

// round injects the faults of a round, and waits for their ends.
func (n *Nemesis) round(ctx context.Context, r Round) {
	var all sync.WaitGroup
	for _, s := range r.Steps {
		all.Go(func() {
			if wait.For(ctx, s.After) == nil {
				n.step(ctx, s)
			}
		})
	}
	all.Wait()
}

// step is one fault from its begin to its end. One that cannot be now is skipped.
func (n *Nemesis) step(ctx context.Context, s Step) {
	k, _ := find(s.Fault)
	rng := rand.New(rand.NewPCG(s.Draw, uint64(s.Turn)))
	a, err := k.begin(ctx, n, s, rng)
	name, _, _ := strings.Cut(s.Fault, ":")
	if err != nil {
		n.missed(s.Fault, name, err)
		return
	}
	n.mu.Lock()
	n.injected[name]++
	n.mu.Unlock()
	n.record(name, a.nodes, with(a.details, "phase", "begin"))
	end := map[string]any{"phase": "end"}
	if a.over != nil {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), overMax)
		outcome, err := a.over(limited)
		cancel()
		if end["outcome"] = outcome; err != nil {
			end["error"] = err.Error()
		}
	} else {
		_ = wait.For(ctx, s.Lasts) // It ends early when the run does.
		if err := a.undo(context.WithoutCancel(ctx)); err != nil {
			end["error"] = err.Error()
		}
	}
	n.record(name, a.nodes, end)
}

func with(details map[string]any, key string, value any) map[string]any {
	all := maps.Clone(details)
	if all == nil {
		all = map[string]any{}
	}
	all[key] = value
	return all
}

func (n *Nemesis) record(name string, nodes []string, value map[string]any) {
	n.Recorder.Record(check.Event{Process: check.Nemesis, Type: check.Info, F: name, Node: strings.Join(nodes, ",")}, value)
}
