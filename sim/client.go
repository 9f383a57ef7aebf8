package sim

import (
	"errors"
	"strconv"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/client/route"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/shard"
)

// client makes one request at a time. After one whose end it does not know it goes on as another process.
type client struct {
	*world
	index   int
	process int
	pinned  kv.NodeID  // 0: goes where the leader is thought to be.
	routes  *route.Map // As old as it is.
	wide    *wide      // A scan that goes on with the next request.

	request *request
	machine *machine // That works on the request.
	number  int      // Of the request, so that late answers are known.
}

func (w *world) newClient(i int) {
	c := &client{world: w, index: i, process: i, routes: route.New()}
	c.fetchMap(w.newest)
	if oneIn(w.fate, w.PinOneIn) {
		c.pinned = kv.NodeID(1 + w.fate.IntN(w.Nodes))
	}
	w.clients = append(w.clients, c)
	w.after(between(w.chance, 0, 300*time.Millisecond), c.next)
}

// opsPerKeyMax bounds the operations on one key in a run, so that the check of linearizability ends.
const opsPerKeyMax = 150

// next begins another request.
func (c *client) next() {
	if c.now > c.Duration {
		return
	}
	if c.now < c.Silent[1] && c.now > c.Silent[0] {
		c.after(c.Silent[1]-c.now, c.next)
		return
	}
	if c.hushed {
		c.after(c.Think, c.next)
		return
	}
	c.number++
	q := c.draw()
	for _, o := range q.ops {
		if c.asked[o.Key] >= opsPerKeyMax {
			c.wide = nil
			c.after(c.Think, c.next)
			return
		}
	}
	for _, o := range q.ops {
		c.asked[o.Key]++
	}
	c.request = q
	c.history = append(c.history, q.ops...)
	number := c.number
	c.after(c.Patience, func() {
		if c.number == number && c.request != nil {
			c.unknown()
		}
	})
	m := c.choose(q.key)
	c.machine = m
	c.after(between(c.chance, 50*time.Microsecond, time.Millisecond), func() {
		if m.core == nil {
			c.end(number, nil, &kv.NotLeaderError{})
			return
		}
		m.process(0, func() { c.ask(m, number) })
	})
}

// longMessageOneIn: so rarely a read comes late in its message.
const longMessageOneIn = 16

// mapOneIn: so rarely a client takes a whole map, from the node that it talks to.
const mapOneIn = 30

// fetchMap takes a whole map.
func (c *client) fetchMap(m *raftmeta.Map) {
	var nodes []route.Node
	for _, n := range m.Nodes() {
		nodes = append(nodes, route.Node{ID: n.ID, Address: address(n.ID)})
	}
	c.routes.Replace(m.Version(), m.Descriptors(), nil, nodes)
}

// address stands for a node among what a client knows.
func address(id kv.NodeID) string { return strconv.FormatUint(uint64(id), 10) }

// choose picks the node to ask for a key: mostly where the map says.
func (c *client) choose(key []byte) *machine {
	if pinned := c.node(c.pinned); pinned != nil {
		return pinned
	}
	if !oneIn(c.chance, 20) {
		target := c.routes.Lookup(key, c.chance.IntN(c.Nodes), func(string) bool { return false })
		if id, err := strconv.ParseUint(target.Address, 10, 64); err == nil && c.node(kv.NodeID(id)) != nil {
			return c.node(kv.NodeID(id))
		}
	}
	return c.nodes[c.chance.IntN(len(c.nodes))]
}

// ask is what the node does with the request.
func (c *client) ask(m *machine, number int) {
	if c.number != number {
		return
	}
	if oneIn(c.chance, mapOneIn) {
		c.fetchMap(m.shards)
	}
	q := c.request
	v := m.holder(q.key)
	if v == nil {
		c.tell(number, nil, &kv.StaleEpochError{Descriptors: []*kv.Descriptor{m.shards.Lookup(q.key)}})
		return
	}
	q.shard = v.Shard()
	switch {
	case q.command != nil:
		c.submit(m, q.shard, shard.EncodeCommand(q.command), q.command.Size(), func(r kv.Result, err error) {
			if err == nil {
				err = refusal(v, r)
			}
			c.tell(number, func() { c.taken(q, r) }, err)
		})
	case q.cut:
		c.scan(m, number, v)
	default:
		// Of reads that come in one message the clock is read once, before them.
		at, most := m.boot(), 2*time.Millisecond
		if oneIn(c.chance, longMessageOneIn) {
			most = c.Patience
		}
		m.process(between(c.chance, 0, most), func() {
			if v := m.holder(q.key); v != nil && c.number == number {
				q.shard = v.Shard()
				c.read(m, number, v, q.key, node.ByLease(at))
			}
		})
	}
}

// refusal is the error of a command that was applied, and did nothing since the shard has changed.
func refusal(v *node.View, r kv.Result) error {
	switch r.Status {
	case kv.WrongShard:
		return &kv.StaleEpochError{Descriptors: []*kv.Descriptor{v.Descriptor()}}
	case kv.Frozen:
		return &kv.NotLeaderError{Shard: v.Shard()}
	}
	return nil
}

// taken notes the answer to a command that was carried out, or refused by its conditions.
func (c *client) taken(q *request, r kv.Result) {
	if r.Status != kv.Done && r.Status != kv.ConditionFailed {
		c.fail("%v gave status %d: %s", q.ops[0], r.Status, r.Reason)
		return
	}
	q.take(r)
}

// tell lets an answer travel to the client.
func (c *client) tell(number int, note func(), err error) {
	c.after(between(c.chance, 50*time.Microsecond, time.Millisecond), func() { c.end(number, note, err) })
}

// waiter calls a function with how a submission ended.
type waiter func(kv.Result, error)

func (w waiter) Done(r kv.Result, err error) { w(r, err) }

func (c *client) submit(m *machine, id kv.ShardID, command *kvdv1.Command, size int, done waiter) {
	m.inbox.Submissions = append(m.inbox.Submissions, node.Submission{Shard: id, Command: command, Bytes: size, Waiter: done})
	m.wake()
}

// read does the steps of a read, with turns in between (C5).
func (c *client) read(m *machine, number int, v *node.View, key []byte, proof node.Proof) {
	pause := func(f func()) { m.process(between(c.chance, 0, 2*time.Millisecond), f) }
	at, byLease := proof.Lease()
	finish := func(g node.Get) {
		switch {
		case g.Ok:
			if byLease {
				c.stats.LeaseReads++
			}
			c.tell(number, func() { got(c.request.ops[0], g.Found, g.Record) }, nil)
		case !byLease:
			c.end(number, nil, &kv.NotLeaderError{})
		default:
			c.submit(m, v.Shard(), nil, 0, func(_ kv.Result, err error) {
				if err != nil {
					c.tell(number, nil, err)
					return
				}
				c.stats.IndexReads++
				pause(func() { c.read(m, number, v, key, node.ByReadIndex()) })
			})
		}
	}
	g, done := m.reader.Look(v, key, proof)
	if _, _, until := v.Lead(); byLease && (g.Ok || !done) && until <= at {
		c.fail("shard %d: node %d reads by a lease that had ended %v before", v.Shard(), m.id, at-until)
		return
	}
	if done {
		finish(g)
		return
	}
	pause(func() {
		if err := m.reader.Load(&g, key); err != nil {
			c.fail("node %d: %v", m.id, err)
			return
		}
		pause(func() {
			m.reader.Finish(&g, key)
			finish(g)
		})
	})
}

// scan reads a span, under the lease or after a ReadIndex.
func (c *client) scan(m *machine, number int, v *node.View) {
	serve := func() {
		m.process(between(c.chance, 0, 2*time.Millisecond), func() {
			if c.number != number {
				return
			}
			q := c.request
			chunk, err := m.reader.Scan(v, kv.ScanRequest{Span: q.span, Limit: q.limit})
			var notLeader *kv.NotLeaderError
			if err != nil && !errors.As(err, &notLeader) {
				c.fail("node %d: %v", m.id, err)
				return
			}
			c.stats.Scans++
			c.tell(number, func() { c.scanned(q, chunk) }, err)
		})
	}
	if lead, _, until := v.Lead(); lead == m.id && m.boot() < until {
		serve()
		return
	}
	c.submit(m, v.Shard(), nil, 0, func(_ kv.Result, err error) {
		if err != nil {
			c.tell(number, nil, err)
			return
		}
		serve()
	})
}

// end notes how a request ended, if the client still waits for it; note notes the answer in the operations.
func (c *client) end(number int, note func(), err error) {
	if c.number != number || c.request == nil {
		return
	}
	q := c.request
	outcome := check.Done
	var (
		notLeader *kv.NotLeaderError
		full      *kv.DiskFullError
		stale     *kv.StaleEpochError
	)
	switch {
	case err == nil:
		c.stats.Answered++
		c.routes.Lead(q.shard, c.machine.id, "")
	case kv.OutcomeOf(err) != kv.NotDone:
		c.unknown()
		return
	default:
		outcome = check.NotDone
		switch {
		case errors.As(err, &stale):
			for _, d := range stale.Descriptors {
				c.routes.Learn(d)
			}
		case errors.As(err, &notLeader) && notLeader.Leader != 0:
			c.routes.Lead(notLeader.Shard, notLeader.Leader, "")
		case errors.As(err, &notLeader):
			c.routes.Forget(address(c.machine.id))
		}
		if errors.As(err, &full) {
			c.stats.DiskFull++
		}
	}
	for _, o := range q.ops {
		o.Outcome, o.Return = outcome, c.moment()
	}
	if outcome == check.Done {
		note()
		if q.cut {
			c.cuts = append(c.cuts, q.ops)
		}
	}
	for _, o := range q.ops {
		if o.Outcome == check.Done {
			c.expiries(o)
		}
		c.note('a', kv.NodeID(c.index), uint64(o.Outcome), uint64(o.Revision))
	}
	if q.wide != nil {
		for _, o := range q.ops {
			if o.Outcome == check.NotDone {
				c.asked[o.Key]--
			}
		}
		c.goOn(q.wide, outcome)
	}
	c.request, c.machine = nil, nil
	c.after(between(c.chance, c.Think/4, c.Think), c.next)
}

// expiries counts reads of a key whose time has come.
func (c *client) expiries(o *check.Operation) {
	switch {
	case o.Kind == check.Get && o.Found:
		c.due[o.Key] = o.ExpireAt
	case o.Kind == check.Get && c.due[o.Key] != 0 && o.Call > c.due[o.Key]:
		c.stats.Expired++
		fallthrough
	case o.Kind != check.Get:
		delete(c.due, o.Key)
	}
}

// unknown gives the request up, and goes on as another process.
func (c *client) unknown() {
	for _, o := range c.request.ops {
		o.Outcome, o.Return = check.Unknown, c.moment()
	}
	c.note('u', kv.NodeID(c.index))
	c.request, c.machine, c.wide = nil, nil, nil
	c.process += c.Clients
	c.number++
	c.after(between(c.chance, c.Think/4, c.Think), c.next)
}

// broken: the connection to a machine broke.
func (c *client) broken(m *machine) {
	if c.machine == m && c.request != nil {
		c.unknown()
	}
}
