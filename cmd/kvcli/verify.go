package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/jepsen/workload"
)

const (
	// verifyProcessesMin and verifyProcessesMax bound the threads of each workload: one for each verifyRateEach operations a
	// second.
	verifyProcessesMin, verifyProcessesMax = 16, 128
	verifyRateEach                         = 20
	// verifyOperationsMax bounds what is recorded, in memory.
	verifyOperationsMax = 1_000_000
	// verifySetupMax, verifyReadMax and verifyCleanMax bound what comes before and after the load.
	verifySetupMax = 30 * time.Second
	verifyReadMax  = time.Minute
	verifyCleanMax = 30 * time.Second
	// verifyShown are the violations of a workload that are told in a table.
	verifyShown = 5
)

// verification is one run of kvcli verify.
type verification struct {
	client    *client.Client
	prefix    string
	workloads []string
	load      time.Duration
	rate      float64
	timeout   time.Duration
	skew      time.Duration
	out       string
	progress  *progress
}

func (c *cli) verifyCommand() *cobra.Command {
	v := &verification{}
	var list string
	cmd := &cobra.Command{
		Use: "verify", Short: "Check that the cluster keeps its promises", Args: cobra.NoArgs,
		Long: `Check that the cluster keeps its promises, under load and without harm: it writes under a prefix of its own, records what it
was told, reads everything back, judges, and deletes what it has written, also when it is interrupted.

The workloads run side by side: ` + strings.Join(workload.Names(), ", ") + `.
Exit codes: 0 all hold; 1 one does not; 3 it could not be found out.`,
		Example: "  kvcli verify --for 30s\n  kvcli verify --workloads register,bank --rate 2000 --for 5m --out verify/",
		RunE: func(cmd *cobra.Command, _ []string) error {
			v.workloads = workload.Names()
			if list != "" {
				v.workloads = strings.Split(list, ",")
			}
			v.timeout = c.timeout
			if err := v.validate(); err != nil {
				return err
			}
			cl, err := c.connect(false)
			if err != nil {
				return err
			}
			defer cl.Close()
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			context.AfterFunc(ctx, stop) // A second one ends it at once.
			v.client, v.prefix, v.progress = cl, verifyPrefix(), newProgress()
			verdicts, err := v.run(ctx)
			v.progress.end()
			if printed := c.printVerdicts(cmd, v, verdicts, err); printed != nil {
				return printed
			}
			return judged(verdicts, err)
		},
	}
	f := cmd.Flags()
	f.DurationVar(&v.load, "for", 30*time.Second, "how long the load lasts; reading back and cleaning up come after")
	f.Float64Var(&v.rate, "rate", 400, "operations a second, of all workloads together")
	f.StringVar(&list, "workloads", "", "which, with commas between; all unless given")
	f.DurationVar(&v.skew, "clock-skew", 500*time.Millisecond, "by how much the nodes' clocks may differ from the one here")
	f.StringVar(&v.out, "out", "", "an empty or new directory for the histories, and pages about what was wrong")
	return cmd
}

func verifyPrefix() string {
	var id [8]byte
	_, _ = rand.Read(id[:])
	return "kvcli-verify/" + hex.EncodeToString(id[:]) + "/"
}

func (v *verification) validate() error {
	if v.load <= 0 {
		return usage("for", fmt.Sprintf("above 0, is %v", v.load))
	}
	for _, name := range v.workloads {
		if !slices.Contains(workload.Names(), name) {
			return usage("workloads", fmt.Sprintf("some of %s, one is %q", strings.Join(workload.Names(), ","), name))
		}
	}
	if !slices.Equal(slices.Compact(slices.Sorted(slices.Values(v.workloads))), slices.Sorted(slices.Values(v.workloads))) {
		return usage("workloads", "each once")
	}
	if n := v.rate * v.load.Seconds(); !(v.rate > 0 && n <= verifyOperationsMax) {
		return usage("rate", fmt.Sprintf("above 0, and at most %d operations in all of --for, are %.0f", verifyOperationsMax, n))
	}
	if v.skew < 0 {
		return usage("clock-skew", fmt.Sprintf("0 or more, is %v", v.skew))
	}
	if v.out == "" {
		return nil
	}
	if there, err := os.ReadDir(v.out); err == nil && len(there) > 0 {
		return usage("out", v.out+": an empty directory, or nothing yet")
	}
	return os.MkdirAll(v.out, 0o755)
}

// run runs the workloads side by side, and gives the verdicts that there are, in their order; nil where there is none.
func (v *verification) run(ctx context.Context) ([]*workload.Verdict, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	verdicts, errs := make([]*workload.Verdict, len(v.workloads)), make([]error, len(v.workloads))
	runs := make([]*workload.Run, len(v.workloads))
	var running sync.WaitGroup
	rate := v.rate / float64(len(v.workloads))
	for i, name := range v.workloads {
		var seed [8]byte
		_, _ = rand.Read(seed[:])
		r, err := workload.New(workload.Config{
			Name: name, Prefix: v.prefix + name + "/", Seed: binary.BigEndian.Uint64(seed[:]),
			Processes: max(verifyProcessesMin, min(verifyProcessesMax, int(rate/verifyRateEach))),
			Rate:      rate, Timeout: v.timeout, Skew: v.skew,
			Clients: []*client.Client{v.client}, Recorder: check.NewRecorder(),
		})
		if err != nil {
			return nil, err
		}
		runs[i] = r
	}
	v.progress.show(fmt.Sprintf("writing under %s for %v", v.prefix, v.load))
	for i, r := range runs {
		running.Go(func() {
			if verdicts[i], errs[i] = v.one(ctx, r); errs[i] != nil {
				errs[i] = fmt.Errorf("%s: %w", r.Name, errs[i])
				cancel()
			}
		})
	}
	running.Wait()
	v.progress.show("cleaning up")
	return verdicts, errors.Join(worst(errs), v.clean(context.WithoutCancel(ctx), runs))
}

// worst is the first error that is no consequence of another.
func worst(errs []error) error {
	var first error
	for _, err := range errs {
		if err != nil && (first == nil || errors.Is(first, context.Canceled)) {
			first = err
		}
	}
	return first
}

// one runs one workload. Without an error there is a verdict.
func (v *verification) one(ctx context.Context, r *workload.Run) (*workload.Verdict, error) {
	err := bounded(ctx, verifySetupMax, r.Setup)
	if err != nil {
		return nil, err
	}
	if err := bounded(ctx, v.load, r.Drive); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	unread := bounded(ctx, verifyReadMax, r.ReadBack)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	events := r.Recorder.Events()
	verdict, err := workload.Judge(r.Name, events)
	if err != nil {
		return nil, errors.Join(err, unread)
	}
	return &verdict, errors.Join(unread, v.keep(&verdict, events))
}

// bounded calls f with a context that lasts so long.
func bounded(ctx context.Context, d time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return f(ctx)
}

// clean deletes what the runs have left, of each as far as it can be had.
func (v *verification) clean(ctx context.Context, runs []*workload.Run) error {
	errs := make([]error, len(runs))
	var running sync.WaitGroup
	for i, r := range runs {
		running.Go(func() { errs[i] = bounded(ctx, verifyCleanMax, r.Clean) })
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("keys may be left, which `kvcli del --prefix %s` removes: %w", v.prefix, err)
	}
	return nil
}

// keep writes the history of a workload, and a page about each key whose operations have no order.
func (v *verification) keep(verdict *workload.Verdict, events []check.Event) error {
	if v.out == "" {
		return nil
	}
	err := create(filepath.Join(v.out, verdict.Workload+".jsonl"), func(w io.Writer) error { return check.WriteEvents(w, events) })
	pages := 0
	for _, x := range verdict.Violations {
		if err != nil || x.Rule != check.NotLinearizable || pages == verifyShown {
			continue
		}
		pages++
		err = create(filepath.Join(v.out, fmt.Sprintf("%s-%d.html", verdict.Workload, pages)), func(w io.Writer) error {
			return workload.Visualize(w, events, x.Key)
		})
	}
	return err
}

func create(path string, write func(w io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// judged is what the command ends with.
func judged(verdicts []*workload.Verdict, err error) error {
	for _, x := range verdicts {
		if x != nil && !x.Valid && !x.Undecided() {
			if err != nil {
				fmt.Fprintln(os.Stderr, "kvcli:", err)
			}
			return errNo
		}
	}
	for _, x := range verdicts {
		switch {
		case err != nil:
		case x.OK == 0:
			err = fmt.Errorf("%s: none of %d operations was answered", x.Workload, x.Operations)
		case len(x.Undone) > 0:
			err = fmt.Errorf("%s: nothing is known of it: not one %s was done", x.Workload, x.Undone[0])
		case !x.Valid:
			err = fmt.Errorf("%s: the search for an order of the operations took too long", x.Workload)
		}
	}
	if err == nil || verdicts == nil {
		return err // A run that was never begun, for its flags.
	}
	return unverified{err}
}

// unverified is why it could not be found out whether all holds. What became of one operation is no exit code of the command's.
type unverified struct{ error }

func (u unverified) Is(target error) bool {
	return target == client.ErrNotDone || target == context.Canceled && errors.Is(u.error, target)
}

// verifyJSON is the outcome of the command.
type verifyJSON struct {
	Valid     bool          `json:"valid"`
	Prefix    string        `json:"prefix"`
	Workloads []verdictJSON `json:"workloads"`
}

type verdictJSON struct {
	Workload   string             `json:"workload"`
	Valid      bool               `json:"valid"`
	Operations int                `json:"operations"`
	OK         int                `json:"ok"`
	Failed     int                `json:"failed"`
	Unknown    int                `json:"unknown"`
	P50Ms      float64            `json:"p50_ms"`
	P99Ms      float64            `json:"p99_ms"`
	MaxMs      float64            `json:"max_ms"`
	Figures    map[string]float64 `json:"figures"`
	Undone     []string           `json:"undone,omitempty"`
	Note       string             `json:"note,omitempty"`
	Violations []violationJSON    `json:"violations"`
}

type violationJSON struct {
	Rule string `json:"rule"`
	Key  string `json:"key,omitempty"`
	Text string `json:"text"`
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

func verdictOf(x *workload.Verdict) verdictJSON {
	out := verdictJSON{
		x.Workload, x.Valid, x.Operations, x.OK, x.Failed, x.Unknown, millis(x.P50), millis(x.P99), millis(x.Max), x.Figures, x.Undone, x.Note, []violationJSON{},
	}
	for _, y := range x.Violations {
		out.Violations = append(out.Violations, violationJSON{string(y.Rule), y.Key, y.Error()})
	}
	return out
}

func (c *cli) printVerdicts(cmd *cobra.Command, v *verification, verdicts []*workload.Verdict, err error) error {
	out := verifyJSON{Valid: err == nil && !slices.ContainsFunc(verdicts, func(x *workload.Verdict) bool { return verdictWord(x) != wordValid }), Prefix: v.prefix, Workloads: []verdictJSON{}}
	verdicts = slices.DeleteFunc(slices.Clone(verdicts), func(x *workload.Verdict) bool { return x == nil })
	for _, x := range verdicts {
		out.Workloads = append(out.Workloads, verdictOf(x))
	}
	if c.output == "json" {
		return c.json(cmd, out)
	}
	if len(verdicts) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "WORKLOAD\tVERDICT\tOPERATIONS\tOK\tFAILED\tUNKNOWN\tP50\tP99\tMAX\tFIGURES")
	for _, x := range verdicts {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%v\t%v\t%v\t%s\n", x.Workload, verdictWord(x), x.Operations, x.OK, x.Failed, x.Unknown,
			x.P50.Round(10*time.Microsecond), x.P99.Round(10*time.Microsecond), x.Max.Round(10*time.Microsecond), figures(x.Figures))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, x := range verdicts {
		tellVerdict(cmd.OutOrStdout(), x)
	}
	return nil
}

// wordValid is the verdict on a workload of which enough is known, and nothing wrong.
const wordValid = "valid"

func verdictWord(x *workload.Verdict) string {
	switch {
	case x.Valid && x.OK > 0 && len(x.Undone) == 0:
		return wordValid
	case x.Valid, x.Undecided():
		return "undecided"
	}
	return "INVALID"
}

func figures(list map[string]float64) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(list)) {
		all = append(all, fmt.Sprintf("%s=%.6g", name, list[name]))
	}
	return strings.Join(all, " ")
}

// tellVerdict tells what the table has no place for.
func tellVerdict(out io.Writer, x *workload.Verdict) {
	if x.Note != "" {
		_, _ = fmt.Fprintf(out, "%s: %s\n", x.Workload, x.Note)
	}
	for i, y := range x.Violations {
		if i == verifyShown {
			_, _ = fmt.Fprintf(out, "%s: and %d more\n", x.Workload, len(x.Violations)-i)
			break
		}
		_, _ = fmt.Fprintf(out, "%s: %v\n", x.Workload, y)
	}
}
