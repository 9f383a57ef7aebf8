package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

const (
	// processesMax bounds Config.Processes, keysMax Config.Keys, rateMax Config.Rate, timeoutMax Config.Timeout, prefixBytesMax
	// Config.Prefix.
	processesMax   = 1024
	keysMax        = 100_000
	rateMax        = 100_000
	timeoutMax     = time.Minute
	prefixBytesMax = 256
	// skewDefault is Config.Skew if that is 0.
	skewDefault = 500 * time.Millisecond
)

// Config is what a run needs.
type Config struct {
	// Name is one of Names.
	Name string
	// Prefix begins every key; 1 to 256 bytes of UTF-8. Nothing is stored under it.
	Prefix string
	Seed   uint64
	// Processes bounds the operations under way, 1 to 1,024.
	Processes int
	// Keys is how many registers or counters are in use at a time, up to 100,000; 0 is as many as Processes need, so that the
	// search for an order of a key's operations is quick. With more, each is asked for seldom.
	Keys int
	// Rate is how many operations begin in a second, all together; above 0, up to 100,000.
	Rate float64
	// Timeout of one operation, up to a minute.
	Timeout time.Duration
	// Skew is by how much clocks of nodes may differ from the one here, with every fault that there will be; 0 is half a
	// second. Only expiry needs it.
	Skew time.Duration
	// Clients are asked in turn by the processes.
	Clients []*client.Client
	// Recorder takes the events of this run only: its processes begin with 0.
	Recorder *check.Recorder
}

func (c *Config) validate() error {
	var errs []error
	bad := func(field, bound string, args ...any) {
		errs = append(errs, &kv.InvalidError{Field: field, Bound: fmt.Sprintf(bound, args...)})
	}
	if _, known := find(c.Name); !known {
		bad("workload", "one of %v, is %q", Names(), c.Name)
	}
	if c.Prefix == "" || len(c.Prefix) > prefixBytesMax || !utf8.ValidString(c.Prefix) {
		bad("prefix", "1 to %d bytes of UTF-8, is %q", prefixBytesMax, c.Prefix)
	}
	if c.Processes < 1 || c.Processes > processesMax {
		bad("processes", "1 to %d, is %d", processesMax, c.Processes)
	}
	if !(c.Rate > 0 && c.Rate <= rateMax) {
		bad("rate", "above 0 and up to %d, is %v", rateMax, c.Rate)
	}
	if c.Timeout <= 0 || c.Timeout > timeoutMax {
		bad("timeout", "above 0 and up to %v, is %v", timeoutMax, c.Timeout)
	}
	if c.Keys < 0 || c.Keys > keysMax {
		bad("keys", "0 to %d, is %d", keysMax, c.Keys)
	}
	if c.Skew < 0 {
		bad("skew", "0 or more, is %v", c.Skew)
	}
	if len(c.Clients) == 0 {
		bad("clients", "at least one")
	}
	if c.Recorder == nil {
		bad("recorder", "one is needed")
	}
	return errors.Join(errs...)
}

// kind is a workload.
type kind struct {
	name  string
	make  func(r *Run) driver
	judge func(j *judging)
	// deeds are what it must have done at least once, or a history tells nothing.
	deeds []deed
}

// driver is what a workload does.
type driver interface {
	// setup writes what the run begins with.
	setup(ctx context.Context) error
	// step does the operations of one moment; their ends are for the history. Its context does not end with the run.
	step(ctx context.Context, t *thread)
	// readBack reads everything, until the context ends.
	readBack(ctx context.Context) error
}

// kinds are in the order in which they are listed.
func kinds() []kind {
	return []kind{
		{"register", newRegister, judgeRegister, []deed{didPut, didGet, didCAS}},
		{"counter", newCounter, judgeCounter, []deed{didIncrement, didGet, didCAS}},
		{"set", newSet, judgeSet, []deed{didCAS, didScan}},
		{"append", newAppend, judgeAppend, []deed{didAppend, didReadList}},
		{"bank", newBank, judgeBank, []deed{didTransfer, didBalances}},
		{"scan", newScan, judgeScan, []deed{didPut, didScan}},
		{"expiry", newExpiry, judgeExpiry, []deed{didPutExpiring, didGet}},
		{"stale", newStale, judgeStale, []deed{didPut, didGetEventual}},
	}
}

// Names lists the workloads.
func Names() []string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}

func find(name string) (kind, bool) {
	all := kinds()
	i := slices.IndexFunc(all, func(k kind) bool { return k.name == name })
	if i < 0 {
		return kind{}, false
	}
	return all[i], true
}

// Run is one run of one workload.
type Run struct {
	Config
	driver  driver
	threads []*thread
	values  atomic.Uint64 // So many have been made.
	ours    bool          // Setup found nothing under the prefix.
}

// New prepares a run. An error names every field that breaks its bound.
func New(c Config) (*Run, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.Skew == 0 {
		c.Skew = skewDefault
	}
	r := &Run{Config: c}
	for i := range c.Processes {
		r.threads = append(r.threads, &thread{
			run: r, process: i, client: c.Clients[i%len(c.Clients)], rng: rand.New(rand.NewPCG(c.Seed, uint64(i+1))),
		})
	}
	k, _ := find(c.Name)
	r.driver = k.make(r)
	return r, nil
}

// Span holds all keys of the run.
func (r *Run) Span() kv.Span { return kv.PrefixSpan([]byte(r.Prefix)) }

// Setup writes what the run begins with. That something is stored under the prefix is an error.
func (r *Run) Setup(ctx context.Context) error {
	if err := r.vacant(ctx); err != nil {
		return err
	}
	r.ours = true
	return r.driver.setup(ctx)
}

// vacant is an error if there are keys under the prefix.
func (r *Run) vacant(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	for item, err := range r.Clients[0].Scan(ctx, client.ScanOptions{Span: r.Span(), Limit: 1, KeysOnly: true}) {
		if err != nil {
			return fmt.Errorf("look under the prefix %s: %w", r.Prefix, err)
		}
		return &kv.InvalidError{Field: "prefix", Bound: "one that no key has, and there is " + kv.FormatKey(item.Key)}
	}
	return nil
}

// Drive does operations until the context ends, and waits for those under way. It is an error if a client was closed.
func (r *Run) Drive(ctx context.Context) error {
	p := newPace(r)
	err := r.all(func(t *thread) error {
		for {
			due, ok := p.next(ctx)
			if !ok {
				return nil
			}
			if t.due = due; t.late() {
				t.drop()
			} else {
				r.driver.step(context.WithoutCancel(ctx), t)
			}
			if t.closed {
				return client.ErrClosed
			}
		}
	})
	if err != nil {
		return fmt.Errorf("drive %s: %w", r.Name, err)
	}
	return nil
}

// ReadBack reads everything that the run has written, when the cluster is whole again, and tries again what fails until the
// context ends; that it came to its end before is an error. It is called once, after Drive.
func (r *Run) ReadBack(ctx context.Context) error {
	for _, t := range r.threads {
		t.due = 0
	}
	if err := r.driver.readBack(ctx); err != nil {
		return fmt.Errorf("read back %s: %w", r.Name, err)
	}
	return nil
}

// Clean deletes everything under the prefix, again until nothing is there; but nothing if Setup did not find it empty. A write
// whose end is unknown may still come after.
func (r *Run) Clean(ctx context.Context) error {
	if !r.ours {
		return nil
	}
	for {
		_, err := r.Clients[0].DeleteRange(ctx, r.Span())
		if err == nil {
			err = r.vacant(ctx)
		}
		if err == nil || pause(ctx) != nil {
			return err
		}
	}
}
