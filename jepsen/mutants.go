package main

// Mutants are kvds that break one rule each, by a build tag. A harness that does not find them would not find a bug either. Each
// is run as real processes in the rows that should catch it, with one seed after the other, until one does.

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/kvdstore/kvd/jepsen/nemesis"
)

const (
	// mutantMax is how long a mutant is looked for, and mutantLength how long each run is.
	mutantMax, mutantLength = 10 * time.Minute, 40 * time.Second
	// huntRate and huntProcesses are enough for many readers at a leader that is none any more, on a machine with few cores.
	huntRate, huntProcesses = 1500, 256
)

// mutant is one.
type mutant struct {
	tag    string
	breaks string
	// hunts are the rows that should catch it, taken in turn.
	hunts []hunt
}

// mutantTable is where the table of mutants is, from the module's root.
const mutantTable = "sim/sim_test.go"

// mutantList reads the table of the mutants; each is hunted as huntsOf says, or everywhere.
func mutantList(root string) (list []mutant, err error) {
	text, err := os.ReadFile(filepath.Join(root, mutantTable))
	if err != nil {
		return nil, fmt.Errorf("the table of mutants: %w", err)
	}
	for _, m := range regexp.MustCompile(`\{"(mutant_\w+)", "(.*)"\},`).FindAllStringSubmatch(string(text), -1) {
		list = append(list, mutant{m[1], m[2], huntsOf[m[1]]})
		if l := &list[len(list)-1]; l.hunts == nil {
			l.hunts = everywhere
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("the table of mutants: there is none in %s", mutantTable)
	}
	return list, nil
}

// moduleRoot is where the source of kvd is.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Module.Dir}}", "github.com/kvdstore/kvd/kv").Output()
	if err != nil {
		return "", fmt.Errorf("go list: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// fewUnknown is a rate at which operations whose end is unknown are so few that a judge finds an order of all.
const fewUnknown = 400

// hunt is a row by its workload and faults.
type hunt struct {
	workload string
	faults   []string
	keys     int // As Config.Keys of the workload.
	shards   int // Other than in all rows, if it is not 0.
	idle     int // Shards that the workload has no keys in.
	// rate is another than in all rows if it is not 0, and there are at least so many nodes.
	rate  float64
	nodes int
}

func hunts(workloads string, faults ...string) (list []hunt) {
	for _, w := range strings.Split(workloads, ",") {
		list = append(list, hunt{workload: w, faults: faults})
	}
	return list
}

// ofShards are such hunts with more shards.
func ofShards(shards int, list []hunt) []hunt {
	for i := range list {
		list[i].shards = shards
	}
	return list
}

// Sets of faults that mutants of one sort need.
var (
	// late: leaders that stand still while answers to them are on their way, and wake when others lead.
	late = []string{"slow", "pause"}
	// apart: leaders that are cut off, and still reached by clients.
	apart = []string{"partition:leaders", "slow"}
	// lost: disks that have only what was synced.
	lost = []string{"disk-loss", "restart-all"}
	// lostShapes: the same while shards change.
	lostShapes = []string{"disk-loss", "split", "merge", "move", "slow"}
	// shapes: shards that change while messages are late and processes end.
	shapes = []string{"split", "merge", "move", "slow", "kill", "partition", "transfer"}
	// merges: mostly merges.
	merges = []string{"merge", "split", "kill", "slow", "transfer"}
	// moves: replicas that come and go.
	moves = []string{"move", "drain", "partition", "kill", "slow", "pause"}
	// clocks: wall clocks that step, and new leaders.
	clocks = []string{"clock", "transfer", "split", "kill"}
)

// rest is a rate at which a shard's log stands still most of the time.
const rest = 40

// everywhere is for mutants that are not known here.
var everywhere = slices.Concat(hunts("register", shapes...), hunts("set,counter", lostShapes...), hunts("append,bank,scan", shapes...), hunts("expiry", clocks...))

// huntsOf has the rows that should catch a mutant.
var huntsOf = map[string][]hunt{
	"mutant_lease_from_the_answer":     ofShards(12, hunts("register", "slow:answers")),
	"mutant_context_used_again":        ofShards(12, hunts("register", "slow:answers")),
	"mutant_clock_not_read":            slices.Concat(hunts("register", late...), hunts("register", apart...)),
	"mutant_proposed_twice":            hunts("counter,append", "slow", "partition", "transfer", "kill"),
	"mutant_promise_left_to_raft":      {{workload: "register", faults: []string{"kill:voter"}, idle: 36}},
	"mutant_ticks_after_messages":      ofShards(12, hunts("register", "stall:voter")),
	"mutant_lease_through_hand_over":   hunts("register", "transfer"),
	"mutant_sync_skipped":              hunts("set", lost...),
	"mutant_vote_before_sync":          hunts("register", "crash:vote-sent", "transfer"),
	"mutant_answer_before_quorum":      hunts("register", "partition", "kill"),
	"mutant_overwritten_is_not_done":   {{workload: "counter", faults: []string{"messages:elections"}, rate: fewUnknown}},
	"mutant_applied_apart":             hunts("counter,append", lost...),
	"mutant_truncated_past_applied":    hunts("set,register", lost...),
	"mutant_cache_without_stamps":      hunts("register", "transfer", "pause", "partition"),
	"mutant_read_state_published_last": hunts("register", "transfer"),
	"mutant_revision_by_index":         hunts("register", merges...),
	"mutant_time_goes_back":            hunts("expiry", clocks...),
	"mutant_due_believed":              hunts("expiry", clocks...),
	"mutant_late_reads":                hunts("expiry", "messages:appends"),
	"mutant_child_without_hard_state":  hunts("register,set", lostShapes...),
	"mutant_shape_before_commit":       {{workload: "register", faults: []string{"crash:birth-synced", "split"}, rate: rest}},
	"mutant_snapshot_over_unsplit":     hunts("register", shapes...),
	"mutant_no_tombstone":              hunts("register", append([]string{"remove", "join"}, moves...)...),
	"mutant_word_without_epoch":        hunts("register", "move:unknown"),
	"mutant_merge_goes_back":           hunts("register", merges...),
	"mutant_unfreeze_before_abort":     hunts("register", merges...),
	"mutant_epoch_unchecked":           hunts("register", shapes...),
	"mutant_late_unfreeze":             hunts("register", "merge:given-up"),
	"mutant_incarnation_through_merge": {{workload: "register", faults: []string{"move:return"}, keys: 3000}},
	"mutant_scan_ends_with_shard":      hunts("scan", "split", "merge"),
	"mutant_stranger_elected":          hunts("register", "split:slow-disk"),
	"mutant_exemption_kept":            hunts("register", "split:transfer"),
	"mutant_waking_campaigns":          {{workload: "register", faults: []string{"kill:sleeper"}, idle: 36}},
	"mutant_old_tail_kept":             {{workload: "register", faults: []string{"partition:tail"}, rate: rest}},
	"mutant_merge_before_freeze":       hunts("register", "merge:crash"),
	"mutant_birth_overwrites":          hunts("register", "crash:vote-sent", "split"),
	"mutant_good_log_reset":            hunts("register,set", append([]string{"disk-loss"}, moves...)...),
	"mutant_early_grave":               {{workload: "register", faults: []string{"crash:removal-synced", "move"}, nodes: 4}},
	"mutant_ingest_overtakes":          {{workload: "register", faults: []string{"crash:installed", "move"}, nodes: 4}},
}

// catch is what became of a mutant.
type catch struct {
	mutant *mutant
	row    row
	why    string // Empty if it was not caught.
	took   time.Duration
	runs   int
}

// mutants looks for each, and tells which row caught it.
func (h *harness) mutants(ctx context.Context) error {
	var caught []catch
	var missed []string
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	list, err := mutantList(root)
	if err != nil {
		return err
	}
	for i := range list {
		m := &list[i]
		if len(h.only) > 0 && !slices.ContainsFunc(h.only, func(part string) bool { return strings.Contains(m.tag, part) }) {
			continue
		}
		c, err := h.hunt(ctx, m)
		if err != nil {
			return fmt.Errorf("%s: %w", m.tag, err)
		}
		if caught = append(caught, c); c.why == "" {
			missed = append(missed, m.tag)
			say("%s: not caught in %d runs, %v", m.tag, c.runs, c.took.Round(time.Second))
		} else {
			say("%s: caught by %s after %v: %s", m.tag, c.row.title(), c.took.Round(time.Second), brief(c.why))
		}
		if err := h.tellMutants(caught); err != nil {
			return err
		}
	}
	say("the table: %s", filepath.Join(h.out, "mutants.md"))
	if len(missed) > 0 {
		return fmt.Errorf("%w: not caught: %s", errInvalid, strings.Join(missed, ", "))
	}
	return nil
}

// hunt runs a mutant until a row catches it, or the time is over.
func (h *harness) hunt(ctx context.Context, m *mutant) (catch, error) {
	own := &harness{settings: new(settings), namespaced: h.namespaced, binaries: map[string]string{}}
	*own.settings = *h.settings
	own.out = filepath.Join(h.out, m.tag)
	own.tags = append(slices.Clone(h.tags), m.tag, testTag) // Which looks at what must always hold, too.
	began := time.Now()
	c := catch{mutant: m}
	for time.Since(began) < mutantMax {
		of := m.hunts[c.runs%len(m.hunts)]
		c.row = row{
			workload: of.workload, faults: of.faults, nodes: max(h.nodes, of.nodes, nemesis.NeedsNodes(of.faults)), length: mutantLength, rate: cmp.Or(of.rate, huntRate), processes: huntProcesses, keys: of.keys, shards: cmp.Or(of.shards, h.shards), idle: of.idle,
			seed: h.seed*1000 + uint64(c.runs), dir: filepath.Join(own.out, fmt.Sprint(c.runs)), hasty: true,
		}
		c.runs++
		r, err := own.again(ctx, c.row)
		if ctx.Err() != nil {
			return c, ctx.Err()
		}
		if c.took = time.Since(began); err != nil {
			// It did not come so far: a mutant that cannot even start is caught by that.
			c.why = err.Error()
			return c, nil
		}
		if len(r.Wrong) > 0 {
			c.why = r.Wrong[0]
			return c, nil
		}
	}
	return c, nil
}

// title is the row's for people.
func (r *row) title() string {
	return fmt.Sprintf("%s with %s, seed %d", r.workload, strings.Join(r.faults, ", "), r.seed)
}

// tellMutants writes the table as far as it is.
func (h *harness) tellMutants(list []catch) error {
	return write(filepath.Join(h.out, "mutants.md"), func(f *bufio.Writer) error {
		_, _ = fmt.Fprintf(f, "| mutant | breaks | caught by | after | what it said |\n|---|---|---|---:|---|\n")
		for _, c := range list {
			by, what := "**not caught**", ""
			if c.why != "" {
				by, what = c.row.title(), strings.ReplaceAll(brief(c.why), "|", `\|`)
			}
			_, _ = fmt.Fprintf(f, "| `%s` | %s | %s | %v | %s |\n", strings.TrimPrefix(c.mutant.tag, "mutant_"), c.mutant.breaks, by, c.took.Round(time.Second), what)
		}
		return nil
	})
}
