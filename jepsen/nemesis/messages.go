package nemesis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/internal/wait"
)

// Faults that befall messages of some kinds, while others of the same nodes arrive: they are lost, late, or come again. What is on
// its way for long, or twice, is what an epoch, a term or a question to the meta group are for; among all the messages of a
// cluster chance hardly ever picks the one that counts.

// messagesFile is looked at by a kvd built for tests, in its directory for such.
const messagesFile = "messages"

// Kinds of messages, as docs/proof.md has them.
const (
	appends, appendAnswers, heartbeats = "MsgApp", "MsgAppResp", "MsgHeartbeat"
	votes, preVotes                    = "MsgVote", "MsgPreVote"
	reports, unfreezes                 = "report", "order of unfreeze"
)

const (
	// silenceFor is for how long a leader's appends are lost: longer than operations wait.
	silenceFor = 7 * time.Second
	// deposedFor is how long others need to elect a leader that the old one does not hear of before, and successorFor how long
	// until one of them leads who follows the old one still.
	deposedFor, successorFor = 1700 * time.Millisecond, 3 * time.Second
	// givenUpAfter is when a merge that makes no progress has been given up, and copiesOver for how long copies of its orders come.
	givenUpAfter, copiesOver, copies = 6 * time.Second, 12 * time.Second, 60
	// mergeLate is by how much the end of the merge that follows is late.
	mergeLate = 400 * time.Millisecond
	// arrivalFor is how long a replica needs to come to a node, and doubtFor how long until it asks whether it is one.
	arrivalFor, doubtFor = 1500 * time.Millisecond, 4 * time.Second
)

// logKeep is the setting of how many entries logs keep for followers that are behind, and logKeepMost keeps all of a while.
const logKeep, logKeepMost = "log-keep", 100_000

// rule says what becomes of messages: of a node's rules the first that fits decides.
type rule struct {
	Of     []string `json:"of,omitempty"`
	To     []uint64 `json:"to,omitempty"`
	Shards []uint64 `json:"shards,omitempty"`
	Lose   bool     `json:"lose,omitempty"`
	Late   string   `json:"late,omitempty"`
	Copies int      `json:"copies,omitempty"`
	Over   string   `json:"over,omitempty"`
}

// rules are those of nodes by their names.
type rules map[string][]rule

// add gives some nodes one more rule.
func (r rules) add(one rule, names ...string) rules {
	for _, name := range names {
		r[name] = append(r[name], one)
	}
	return r
}

// bend puts a fault's rules in force, instead of those that it had before and beside those of other faults; nil ends them.
func (n *Nemesis) bend(fault string, r rules) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.bent[fault] = r
	var errs []error
	for _, m := range n.Cluster.Members() {
		var all []rule
		for _, name := range []string{silenced, overwriting, givingUp, unknowing} {
			all = append(all, n.bent[name][m.Name()]...)
		}
		text := []byte(nil)
		if len(all) > 0 {
			var err error
			if text, err = json.Marshal(all); err != nil {
				return err
			}
		}
		errs = append(errs, m.Tamper(messagesFile, string(text)))
	}
	return errors.Join(errs...)
}

// Names of the faults that bend messages.
const (
	silenced    = "messages:appends"
	overwriting = "messages:elections"
	givingUp    = "merge:given-up"
	unknowing   = "move:unknown"
)

// phase is a part of a fault: rules, something that is done once they hold, and how long it takes.
type phase struct {
	rules rules
	then  func(ctx context.Context) error
	lasts time.Duration
}

// play has phases of a fault follow each other. What was done by then, and does not work out, ends it early.
func (n *Nemesis) play(fault string, phases ...phase) func(ctx context.Context) (string, error) {
	return func(ctx context.Context) (outcome string, err error) {
		defer func() { err = errors.Join(err, n.bend(fault, nil)) }()
		for i, p := range phases {
			err := n.bend(fault, p.rules)
			if err == nil && p.then != nil {
				limited, cancel := context.WithTimeout(ctx, askMax)
				err = p.then(limited)
				cancel()
			}
			if err == nil {
				err = wait.For(ctx, p.lasts)
			}
			if err != nil {
				return fmt.Sprintf("ended in part %d", i+1), err
			}
		}
		return "done", nil
	}
}

// lostAppends: what the leader of a shard appends is lost, while its heartbeats arrive: it leads on, reads by its lease, and nothing
// is committed.
func lostAppends(_ context.Context, n *Nemesis, s Step, rng *rand.Rand) (*act, error) {
	d, err := n.shard(rng)
	if err != nil {
		return nil, err
	}
	leader := n.view.name(d.GetLeader())
	if leader == "" {
		return nil, errNobody
	}
	lost := rules{}.add(rule{Of: []string{appends}, Shards: []uint64{d.GetShard()}, Lose: true}, leader)
	return &act{nodes: []string{leader}, details: map[string]any{"shard": d.GetShard()}, over: n.play(silenced, phase{rules: lost, lasts: silenceFor + s.Lasts})}, nil
}

// overwritten: of five nodes, the leader of shards is left with one follower. The others elect another, whose appends reach the old
// leader alone, and replace there what it had proposed last. Then that follower is elected, which still has it, by those that have
// neither; the two leaders of before hear so at once, and what was proposed to the second one is not done.
func overwritten(_ context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	d, err := n.shard(rng)
	if err != nil {
		return nil, err
	}
	names := n.members(d)
	if len(names) != 5 || n.view.name(d.GetLeader()) == "" {
		return nil, errNobody
	}
	rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	i := slices.Index(names, n.view.name(d.GetLeader()))
	names[0], names[i] = names[i], names[0]
	var shards []uint64
	for _, o := range n.view.shardsIn(n.Span) {
		if o.GetLeader() == d.GetLeader() && len(n.members(o)) == 5 {
			shards = append(shards, o.GetShard())
		}
	}
	old, follower, next, others := names[0], names[1], names[2], names[3:]
	lose := func(of []string, to ...string) rule { return rule{Of: of, To: n.ids(to), Shards: shards, Lose: true} }
	leads, asks := []string{appends, heartbeats, votes, preVotes}, []string{votes, preVotes}
	deposed := rules{}.
		add(lose(nil, others...), old, follower).
		add(lose(leads, next), old).
		add(lose(nil, next), follower).
		add(lose(nil, follower), next).
		add(lose(asks, old), next).
		add(lose([]string{appends}, others...), next).
		add(lose(nil, old, follower), others...).
		add(lose(asks), others...)
	rest := append(slices.Clone(others), follower)
	succeeded := rules{}.
		add(lose(leads, rest...), old, next).
		add(lose(asks, old, next), rest...)
	details := map[string]any{"shards": shards, "follower": follower, "next": next}
	return &act{nodes: []string{old}, details: details, over: n.play(overwriting,
		phase{rules: deposed, lasts: deposedFor}, phase{rules: succeeded, lasts: successorFor})}, nil
}

// givenUpMerge: a merge is given up, since a replica of the right shard gets no appends, and nothing else instead, and begun anew with another leader, while
// the order to end the first freeze comes again and again. It takes long from the proposal of the merge to its end.
func givenUpMerge(_ context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	list := n.view.shardsIn(n.Span)
	if len(list) < 2 {
		return nil, errNobody
	}
	i := rng.IntN(len(list) - 1)
	left, right := list[i], list[i+1]
	all := n.members(left)
	followers := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return name == n.view.name(left.GetLeader()) })
	if len(followers) < 2 || len(followers) == len(all) {
		return nil, errNobody
	}
	rng.Shuffle(len(followers), func(i, j int) { followers[i], followers[j] = followers[j], followers[i] })
	slow, next := followers[0], followers[1]
	again := rule{Of: []string{unfreezes}, Copies: copies, Over: copiesOver.String()}
	stuck := rules{}.add(again, all...).add(rule{Of: []string{appends}, To: n.ids([]string{slow}), Shards: []uint64{right.GetShard()}, Lose: true}, all...)
	late := rules{}.add(again, all...).add(rule{Of: []string{appendAnswers}, Shards: []uint64{left.GetShard()}, Late: mergeLate.String()}, all...)
	var goal uint64
	ask := func(ctx context.Context) error {
		// As long as the log is there, none that lacks the end of it gets a snapshot.
		if _, err := n.Operator.SetSetting(ctx, logKeep, fmt.Sprint(logKeepMost)); err != nil {
			return err
		}
		resp, err := n.Operator.MergeShard(ctx, &kvdv1.MergeShardRequest{Shard: left.GetShard()})
		goal = resp.GetGoal().GetId()
		n.own(goal)
		return err
	}
	hand := func(ctx context.Context) error {
		_, err := n.Operator.TransferLeader(ctx, &kvdv1.TransferLeaderRequest{Shard: left.GetShard(), ToNode: n.view.id(next)})
		return err
	}
	parts := n.play(givingUp, phase{stuck, ask, givenUpAfter}, phase{late, hand, copiesOver / 2})
	details := map[string]any{"shard": left.GetShard(), "right": right.GetShard(), "slow": slow, "next": next}
	return &act{nodes: []string{slow}, details: details, over: func(ctx context.Context) (string, error) {
		if outcome, err := parts(ctx); err != nil {
			return outcome, err
		}
		return n.reached(ctx, goal)
	}}, nil
}

// unknownMove: a node gets a replica, of which the map does not know yet, since what the nodes of the shard report is lost. It does
// not hear that leader any more, and asks the leader of the meta group whether it is a replica.
func unknownMove(_ context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	meta := n.view.meta()
	list := slices.DeleteFunc(n.view.shardsIn(n.Span), func(d *kvdv1.Descriptor) bool {
		leader := n.view.name(d.GetLeader())
		return leader == "" || leader == meta
	})
	if len(list) == 0 || meta == "" {
		return nil, errNobody
	}
	d := list[rng.IntN(len(list))]
	to := n.stranger(d, rng, meta)
	if to == 0 {
		return nil, errNobody
	}
	unreported := rule{Of: []string{reports}, To: n.ids([]string{meta}), Lose: true}
	unheard := rule{Of: []string{appends, heartbeats}, To: []uint64{to}, Shards: []uint64{d.GetShard()}, Lose: true}
	from := d.GetReplicas()[rng.IntN(len(d.GetReplicas()))].GetNode()
	var goal uint64
	ask := func(ctx context.Context) error {
		resp, err := n.Operator.MoveReplica(ctx, &kvdv1.MoveReplicaRequest{Shard: d.GetShard(), FromNode: from, ToNode: to})
		goal = resp.GetGoal().GetId()
		n.own(goal)
		return err
	}
	parts := n.play(unknowing, phase{rules{}.add(unreported, n.members(d)...), ask, arrivalFor}, phase{rules{}.add(unreported, n.members(d)...).add(unheard, n.members(d)...), nil, doubtFor})
	details := map[string]any{"shard": d.GetShard(), "from": n.view.name(from), "to": n.view.name(to)}
	return &act{nodes: []string{n.view.name(to)}, details: details, over: func(ctx context.Context) (string, error) {
		if outcome, err := parts(ctx); err != nil {
			return outcome, err
		}
		return n.reached(ctx, goal)
	}}, nil
}

// own notes a goal as one that was set here.
func (n *Nemesis) own(goal uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.goals[goal] = true
}

// members are the names of the nodes with the voters of a shard.
func (n *Nemesis) members(d *kvdv1.Descriptor) (names []string) {
	for _, r := range d.GetReplicas() {
		if name := n.view.name(r.GetNode()); name != "" && !r.GetLearner() {
			names = append(names, name)
		}
	}
	return names
}

// ids are those of nodes by their names.
func (n *Nemesis) ids(names []string) (list []uint64) {
	for _, name := range names {
		list = append(list, n.view.id(name))
	}
	return list
}
