package sim

import (
	"container/heap"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	mathrand "math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// event is something that happens at a moment of virtual time; equal moments in the order of their creation.
type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	old[len(old)-1] = event{}
	*e = old[:len(old)-1]
	return last
}

// world is one run.
type world struct {
	Plan
	seed   uint64
	now    time.Duration
	events events
	seq    uint64
	// chance draws for the network, the disks and the clients; fate for faults: more of the one leaves the other alone.
	chance, fate *mathrand.Rand
	trace        *xxhash.Digest

	maps
	// nodes are the members; machines are all that there ever were.
	nodes, machines []*machine
	clients         []*client
	blocked         map[link]bool
	late            map[link]time.Duration // How much longer messages take.
	leaders         map[leadership]kv.NodeID
	ballots         map[ballot]bool // Requests for votes, and whether the candidate lacked something.
	evidence
	cache   *pebble.Cache // Of the stores, with the plan's Pebble.
	ledger  ledger
	values  int
	asked   map[string]int             // Operations, by key.
	due     map[string]int64           // When a key that was seen expires, by key; for the count of those that did.
	elected func(kv.ShardID, *machine) // A story waits for an election.
	// onStep, if set, hears of every step of a shard on every machine.
	onStep func(m *machine, p phase, shard kv.ShardID, s step)
	// tap, if set, hears of every message that is sent, and tells which are lost.
	tap func(from *machine, to kv.NodeID, m *kvdv1.RaftMessage) bool
	// hushed: a story has the clients begin nothing.
	hushed bool
	// onReset, if set, hears of every log that is reset to a snapshot.
	onReset func(m *machine, shard kv.ShardID)
	quiet   bool // The faults are over.
	stats   Stats
	// handedOver counts the hand-overs that the plan has told of.
	handedOver int
	err        error
}

// link is one direction between two nodes.
type link struct{ from, to kv.NodeID }

// leadership is of one shard in one term.
type leadership struct {
	shard kv.ShardID
	term  kv.Term
}

func newWorld(seed uint64, plan Plan) *world {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	// Raft draws its election time-outs from here.
	rand.Reader = mathrand.NewChaCha8(key)
	return &world{
		Plan: plan, seed: seed, chance: mathrand.New(mathrand.NewPCG(seed, 1)), fate: mathrand.New(mathrand.NewPCG(seed, 2)),
		trace: xxhash.New(), blocked: map[link]bool{}, late: map[link]time.Duration{}, ledger: newLedger(),
		leaders: map[leadership]kv.NodeID{}, ballots: map[ballot]bool{}, maps: maps{versions: map[uint64]version{}, shapes: map[shape]*kv.Descriptor{}, homes: map[kv.ReplicaID]replicaHome{}}, asked: map[string]int{}, due: map[string]int64{},
	}
}

// after makes f happen after a time.
func (w *world) after(d time.Duration, f func()) {
	w.seq++
	heap.Push(&w.events, event{at: w.now + max(d, 0), seq: w.seq, do: f})
}

// note adds to the trace.
func (w *world) note(what byte, node kv.NodeID, more ...uint64) {
	b := []byte{what}
	b = binary.BigEndian.AppendUint64(b, uint64(w.now))
	b = binary.BigEndian.AppendUint64(b, uint64(node))
	for _, n := range more {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	_, _ = w.trace.Write(b)
}

// fail ends the run.
func (w *world) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("at %v: "+format, append([]any{w.now}, args...)...)
	}
}

// run lets everything happen until a moment.
func (w *world) run(until time.Duration) {
	for w.err == nil && len(w.events) > 0 && w.events[0].at <= until {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		w.guarded(e.do)
	}
	if w.err == nil {
		w.now = until
	}
}

func (w *world) guarded(f func()) {
	defer func() {
		if r := recover(); r != nil {
			w.fail("panic: %v\n%s", r, debug.Stack())
		}
	}()
	f()
}

// between draws a time.
func between(r *mathrand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(r.Int64N(int64(high-low)+1))
}

func oneIn(r *mathrand.Rand, n int) bool { return n > 0 && r.IntN(n) == 0 }
