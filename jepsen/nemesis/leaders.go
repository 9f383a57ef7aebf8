package nemesis

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/internal/wait"
	"github.com/kvdstore/kvd/jepsen/cluster"
	"github.com/kvdstore/kvd/kv"
)

// Faults that befall a leader which does not notice in time, or the voter that its lease stands on. Nodes promise for 700 to 750 ms
// not to elect another leader, and a lease runs for 630 ms from before it was asked for.

const (
	// answersAfter is how long answers are late before the next thing happens.
	answersAfter = time.Second
	// lonelyFor is how long a node hears of no leader before it has stood for election for certain.
	lonelyFor = 2 * time.Second
	// unheardFor is by how much what a leader says comes too late.
	unheardFor = 3 * time.Second
	// slowerBy is by how much links become slower at a time.
	slowerBy = 350 * time.Millisecond
	// transfersMost bounds the hand-overs at a time.
	transfersMost = 8
	// headStart is by how much a voter's messages to others are ahead of a leader's to it.
	headStart = 50 * time.Millisecond
)

// between draws a time.
func between(rng *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(rng.Int64N(int64(high-low)))
}

// inTurn does things one after the other until one fails.
func inTurn(ctx context.Context, steps ...func(ctx context.Context) error) error {
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// pausing is a step that waits.
func pausing(d time.Duration) func(ctx context.Context) error {
	return func(ctx context.Context) error { return wait.For(ctx, d) }
}

// cast gives the node that leads most of the shards of a span now, and the others by chance.
func (n *Nemesis) cast(ctx context.Context, span kv.Span, rng *rand.Rand) (leader string, others []string, err error) {
	n.look(ctx)
	counts := map[string]int{}
	names := n.running(rng)
	for _, d := range n.view.shardsIn(span) {
		counts[n.view.name(d.GetLeader())]++
	}
	for _, name := range names {
		if counts[name] > counts[leader] || leader == "" {
			leader = name
		}
	}
	if counts[leader] == 0 || len(names) < 3 {
		return "", nil, errNobody
	}
	return leader, slices.DeleteFunc(names, func(name string) bool { return name == leader }), nil
}

// voters gives as many of the others as make a majority with a leader, and the rest.
func voters(others []string) (some, rest []string) {
	some = others[:(len(others)+1)/2]
	return some, others[len(some):]
}

// slow makes links slow by a time.
func (n *Nemesis) slow(links []cluster.Link, by time.Duration) { n.Cluster.Slow(slowness(links, by)) }

func slowness(links []cluster.Link, by time.Duration) map[cluster.Link]cluster.Slowness {
	all := map[cluster.Link]cluster.Slowness{}
	for _, k := range links {
		all[k] = cluster.Slowness{Delay: by}
	}
	return all
}

// rejoin makes all links whole again; err is what happened before.
func (n *Nemesis) rejoin(err error) error {
	n.Cluster.Slow(nil)
	return errors.Join(err, n.Cluster.Cut(nil))
}

// lateAnswers: what others answer to a leader comes late, and then they do not hear it any more. Either it comes so late that the leader
// has asked again meanwhile, and it does not hear of who leads next for as long; or before, and the leader stands still.
func lateAnswers(ctx context.Context, n *Nemesis, s Step, rng *rand.Rand) (*act, error) {
	leader, others, err := n.cast(ctx, n.Span, rng)
	if err != nil {
		return nil, err
	}
	links := cluster.Between(others, []string{leader})
	// A cut in one direction would soon hold up the other too, whose packets are not confirmed.
	unheard := slowness(cluster.Between([]string{leader}, others), unheardFor)
	delay, still := between(rng, 900*time.Millisecond, 1300*time.Millisecond), time.Duration(0)
	if s.Turn%2 == 1 {
		delay, still = between(rng, 100*time.Millisecond, 180*time.Millisecond), between(rng, 400*time.Millisecond, 650*time.Millisecond)
	}
	maps.Copy(unheard, slowness(links, delay))
	m := n.Cluster.Node(leader)
	details := map[string]any{"delay_ms": delay.Milliseconds(), "pause_ms": still.Milliseconds()}
	return &act{nodes: []string{leader}, details: details, over: func(ctx context.Context) (string, error) {
		return "done", n.rejoin(inTurn(ctx,
			func(ctx context.Context) error { return n.slower(ctx, links, delay) },
			pausing(answersAfter),
			func(ctx context.Context) error {
				n.Cluster.Slow(unheard)
				if still == 0 {
					return nil
				}
				m.Pause()
				defer m.Resume()
				return wait.For(ctx, still)
			},
			pausing(answersAfter+s.Lasts),
		))
	}}, nil
}

// slower makes links slow by little at first, so that nobody is silent for an election timeout.
func (n *Nemesis) slower(ctx context.Context, links []cluster.Link, by time.Duration) error {
	for d := min(by, slowerBy); ; d = min(by, d+slowerBy) {
		n.slow(links, d)
		if err := wait.For(ctx, slowerBy); err != nil || d == by {
			return err
		}
	}
}

// lateTransfers: a leader hands over what it leads while it hears late of those that lead next, and not so late that it has no lease.
func lateTransfers(ctx context.Context, n *Nemesis, s Step, rng *rand.Rand) (*act, error) {
	leader, others, err := n.cast(ctx, n.Span, rng)
	if err != nil {
		return nil, err
	}
	delay := between(rng, 50*time.Millisecond, 150*time.Millisecond)
	n.slow(cluster.Between(others, []string{leader}), delay)
	var requests []*kvdv1.TransferLeaderRequest
	for _, d := range n.view.shardsIn(n.Span) {
		if to := heir(d); n.view.name(d.GetLeader()) == leader && to != 0 && len(requests) < transfersMost {
			requests = append(requests, &kvdv1.TransferLeaderRequest{Shard: d.GetShard(), ToNode: to})
		}
	}
	details := map[string]any{"delay_ms": delay.Milliseconds(), "shards": len(requests)}
	return &act{nodes: []string{leader}, details: details, over: func(ctx context.Context) (string, error) {
		return "done", n.rejoin(inTurn(ctx, pausing(answersAfter), func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, askMax)
			defer cancel()
			var all sync.WaitGroup
			for _, r := range requests {
				all.Go(func() { _, _ = n.Operator.TransferLeader(ctx, r) }) // What became of it, the cluster's events tell.
			}
			all.Wait()
			return nil
		}, pausing(s.Lasts)))
	}}, nil
}

// heir is a node that a shard's leadership may be handed to; 0 if there is none.
func heir(d *kvdv1.Descriptor) uint64 {
	for _, r := range d.GetReplicas() {
		if r.GetNode() != d.GetLeader() && !r.GetLearner() {
			return r.GetNode()
		}
	}
	return 0
}

// stallVoter: a leader is cut off from some, who stand for election, and the event loops of the voters that its lease stands on stand still for
// longer than an election timeout, but not so long that the leader gives up. They find its messages when they go on. What it says
// next comes a little late, so that they are by themselves until then.
func stallVoter(ctx context.Context, n *Nemesis, s Step, rng *rand.Rand) (*act, error) {
	leader, others, err := n.cast(ctx, n.Span, rng)
	if err != nil {
		return nil, err
	}
	some, rest := voters(others)
	still := between(rng, 850*time.Millisecond, 1150*time.Millisecond)
	n.slow(cluster.Between([]string{leader}, some), headStart)
	return &act{nodes: some, details: map[string]any{"leader": leader, "stall_ms": still.Milliseconds()}, over: func(ctx context.Context) (string, error) {
		return "done", n.rejoin(inTurn(ctx,
			func(context.Context) error { return n.Cluster.Cut(cluster.Apart([]string{leader}, rest)) },
			pausing(lonelyFor),
			func(context.Context) error { return n.tamper(some, stallFile, still.String()) },
			pausing(still+s.Lasts),
			func(context.Context) error { return n.tamper(some, stallFile, "") },
		))
	}}, nil
}

// killVoter: a leader is cut off from some, who stand for election; the voters that its lease stands on are killed, and start at once, without
// hearing it any more. Whoever stands must have all that the voters have, so nobody writes; but somebody reads.
func killVoter(ctx context.Context, n *Nemesis, s Step, rng *rand.Rand) (*act, error) {
	leader, others, err := n.cast(ctx, n.Idle, rng)
	if err != nil {
		return nil, err
	}
	some, rest := voters(others)
	return &act{nodes: some, details: map[string]any{"leader": leader}, over: func(ctx context.Context) (string, error) {
		reading, stop := context.WithCancel(ctx)
		var reads sync.WaitGroup
		for _, d := range n.view.shardsIn(n.Idle) {
			reads.Go(func() { n.read(reading, spanOf(d).Intersect(n.Idle).Start) })
		}
		defer reads.Wait()
		defer stop()
		return "done", n.rejoin(inTurn(ctx,
			func(context.Context) error { return n.Cluster.Cut(cluster.Apart([]string{leader}, rest)) },
			pausing(between(rng, time.Second, 3*time.Second/2)),
			func(context.Context) error { return n.startAnew(some, cluster.Apart([]string{leader}, others)) },
			pausing(s.Lasts),
		))
	}}, nil
}

// read reads a key again and again until the context ends; what comes of it is of no concern.
func (n *Nemesis) read(ctx context.Context, key []byte) {
	for wait.For(ctx, lookEvery) == nil {
		_, _, _ = n.Operator.Get(ctx, key)
	}
}

// startAnew kills nodes and starts them at once, while these links are cut.
func (n *Nemesis) startAnew(names []string, links []cluster.Link) error {
	if err := n.each(names, killNow); err != nil {
		return err
	}
	var both sync.WaitGroup
	var cutting error
	both.Go(func() { cutting = n.Cluster.Cut(links) })
	started := n.each(names, start)
	both.Wait()
	return errors.Join(cutting, started)
}

const (
	// asleepMax is how long idle shards may take to fall asleep, and asleepMost how many of a hundred are to.
	asleepMax, asleepMost = 10 * time.Second, 60
)

// killSleeper: when most idle shards sleep, a node is killed and starts at once. It hears of no leader, and asks the others, which wakes
// them; of those the leader and the rest do not hear each other.
func killSleeper(ctx context.Context, n *Nemesis, s Step, rng *rand.Rand) (*act, error) {
	leader, others, err := n.cast(ctx, n.Idle, rng)
	if err != nil {
		return nil, err
	}
	some, rest := voters(others)
	return &act{nodes: some, details: map[string]any{"leader": leader}, over: func(ctx context.Context) (string, error) {
		return "done", n.rejoin(inTurn(ctx, n.fallAsleep,
			func(context.Context) error { return n.startAnew(some, cluster.Apart([]string{leader}, rest)) },
			pausing(lonelyFor+s.Lasts),
		))
	}}, nil
}

// fallAsleep waits until most shards sleep.
func (n *Nemesis) fallAsleep(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, asleepMax, errAwake)
	defer cancel()
	for {
		if all, asleep := n.view.sleepers(n.Idle); all > 0 && asleep*100 >= all*asleepMost {
			return nil
		}
		if wait.For(ctx, lookEvery) != nil {
			return context.Cause(ctx)
		}
	}
}

var errAwake = errors.New("the shards stay awake")
