package sim

import (
	"errors"
	"strconv"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/shard"
)

// client does one operation at a time. After one whose end it does not know it goes on as another process.
type client struct {
	*world
	index    int
	process  int
	pinned   kv.NodeID // 0: goes where the leader is thought to be.
	believed map[kv.ShardID]kv.NodeID

	op      *check.Operation
	machine *machine // That works on the operation.
	number  int      // Of the operation, so that late answers are known.
}

func (w *world) newClient(i int) {
	c := &client{world: w, index: i, process: i, believed: map[kv.ShardID]kv.NodeID{}}
	if oneIn(w.fate, w.PinOneIn) {
		c.pinned = kv.NodeID(1 + w.fate.IntN(w.Nodes))
	}
	w.clients = append(w.clients, c)
	w.after(between(w.chance, 0, 300*time.Millisecond), c.next)
}

// opsPerKeyMax bounds the operations on one key in a run, so that the check of linearizability ends.
const opsPerKeyMax = 150

// next begins another operation.
func (c *client) next() {
	if c.now > c.Duration {
		return
	}
	if c.now < c.Silent[1] && c.now > c.Silent[0] {
		c.after(c.Silent[1]-c.now, c.next)
		return
	}
	c.number++
	key := string(rune('a'+c.chance.IntN(c.Shards))) + strconv.Itoa(c.chance.IntN(c.KeysPerShard))
	if c.asked[key]++; c.asked[key] > opsPerKeyMax {
		c.after(c.Think, c.next)
		return
	}
	op := &check.Operation{Process: c.process, Key: key, Call: int64(c.now), Outcome: check.Unknown}
	switch draw := c.chance.IntN(100); {
	case key[1] == '0':
		// The first key of each shard is a counter.
		op.Kind, op.Delta = check.Increment, c.chance.Int64N(5)-1
		if draw < c.ReadPercent {
			op.Kind = check.Get
		}
	case draw < c.ReadPercent:
		op.Kind = check.Get
	case draw < c.ReadPercent+(100-c.ReadPercent)*2/3:
		op.Kind = check.Put
	case draw < 95:
		op.Kind = check.CAS
		op.Expect = kv.Revision(c.chance.IntN(3))
		for i := len(c.history) - 1; i >= 0 && i > len(c.history)-30; i-- {
			if last := c.history[i]; last.Key == key && last.Revision != 0 {
				op.Expect = last.Revision
				break
			}
		}
	default:
		op.Kind = check.Delete
	}
	if op.Kind == check.Put || op.Kind == check.CAS {
		c.values++
		op.Value = "v" + strconv.Itoa(c.values)
	}
	c.op = op
	c.history = append(c.history, op)
	number := c.number
	c.after(c.Patience, func() {
		if c.number == number && c.op != nil {
			c.unknown()
		}
	})
	m := c.choose([]byte(key))
	c.machine = m
	c.after(between(c.chance, 50*time.Microsecond, time.Millisecond), func() {
		if m.core == nil {
			c.end(number, kv.Result{}, &kv.NotLeaderError{})
			return
		}
		m.process(0, func() { c.ask(m, number) })
	})
}

// choose picks the node to ask.
func (c *client) choose(key []byte) *machine {
	if c.pinned != 0 {
		return c.nodes[c.pinned-1]
	}
	if id := c.believed[c.shards.Lookup(key).Shard]; id != 0 && !oneIn(c.chance, 20) {
		return c.nodes[id-1]
	}
	return c.nodes[c.chance.IntN(c.Nodes)]
}

// ask is what the node does with the operation.
func (c *client) ask(m *machine, number int) {
	if c.number != number {
		return
	}
	op := c.op
	key := []byte(op.Key)
	id := c.shards.Lookup(key).Shard
	if op.Kind == check.Get {
		c.read(m, number, m.views[id], key, node.ByLease)
		return
	}
	command := &kv.Command{Key: key, Value: []byte(op.Value), Delta: op.Delta}
	switch op.Kind {
	case check.Put:
		command.Op = kv.OpPut
	case check.CAS:
		command.Op, command.Cond = kv.OpPut, kv.Condition{Kind: kv.IfRevision, Revision: op.Expect}
		if op.Expect == 0 {
			command.Cond = kv.Condition{Kind: kv.IfAbsent}
		}
	case check.Delete:
		command.Op = kv.OpDelete
	case check.Increment:
		command.Op = kv.OpIncrement
	}
	c.submit(m, id, shard.EncodeCommand(command), command.Size(), func(r kv.Result, err error) {
		m.after(between(c.chance, 50*time.Microsecond, time.Millisecond), func() { c.end(number, r, err) })
	})
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
	finish := func(g node.Get) {
		switch {
		case g.Ok:
			if proof == node.ByLease {
				c.stats.LeaseReads++
			}
			r := kv.Result{Status: kv.Done, Found: g.Found, Revision: g.Record.Revision}
			value := string(g.Record.Value)
			c.after(between(c.chance, 50*time.Microsecond, time.Millisecond), func() {
				if c.number == number && c.op != nil {
					c.op.Observed = value
				}
				c.end(number, r, nil)
			})
		case proof == node.ByReadIndex:
			c.end(number, kv.Result{}, &kv.NotLeaderError{})
		default:
			c.submit(m, v.Shard(), nil, 0, func(_ kv.Result, err error) {
				if err != nil {
					c.after(between(c.chance, 50*time.Microsecond, time.Millisecond), func() { c.end(number, kv.Result{}, err) })
					return
				}
				c.stats.IndexReads++
				pause(func() { c.read(m, number, v, key, node.ByReadIndex) })
			})
		}
	}
	g, done := m.reader.Look(v, key, proof)
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

// end notes an answer, if the client still waits for it.
func (c *client) end(number int, r kv.Result, err error) {
	if c.number != number || c.op == nil {
		return
	}
	op := c.op
	id := c.shards.Lookup([]byte(op.Key)).Shard
	var notLeader *kv.NotLeaderError
	switch {
	case errors.As(err, &notLeader):
		c.believed[id] = notLeader.Leader
		op.Outcome = check.NotDone
	case err != nil && kv.OutcomeOf(err) == kv.NotDone:
		op.Outcome = check.NotDone
	case err != nil:
		c.unknown()
		return
	case r.Status == kv.NotANumber:
		op.Outcome = check.NotDone
	case r.Status != kv.Done && r.Status != kv.ConditionFailed:
		c.fail("%v gave status %d: %s", op, r.Status, r.Reason)
		return
	default:
		c.stats.Answered++
		c.believed[id] = c.machine.id
		op.Outcome, op.Found, op.Revision = check.Done, r.Found, r.Revision
		switch op.Kind {
		case check.CAS:
			op.Succeeded = r.Status == kv.Done
		case check.Increment:
			op.Observed = strconv.FormatInt(r.Counter, 10)
		case check.Delete:
			if !op.Found {
				op.Revision = 0
			}
		}
	}
	if op.Outcome == check.NotDone {
		op.Observed = ""
	}
	op.Return = int64(c.now)
	c.note('a', kv.NodeID(c.index), uint64(op.Outcome), uint64(op.Revision))
	c.op, c.machine = nil, nil
	c.after(between(c.chance, c.Think/4, c.Think), c.next)
}

// unknown gives the operation up, and goes on as another process.
func (c *client) unknown() {
	c.op.Outcome, c.op.Observed, c.op.Return = check.Unknown, "", int64(c.now)
	c.note('u', kv.NodeID(c.index))
	c.op, c.machine = nil, nil
	c.process += c.Clients
	c.number++
	c.after(between(c.chance, c.Think/4, c.Think), c.next)
}

// broken: the connection to a machine broke.
func (c *client) broken(m *machine) {
	if c.machine == m && c.op != nil {
		c.unknown()
	}
}

// operate changes a setting now and then, so that the meta group's log grows, is truncated and travels as a snapshot
// too: one of it must leave the keys of users alone.
func (w *world) operate() {
	w.after(between(w.chance, 20*time.Millisecond, 200*time.Millisecond), func() {
		if w.now > w.Duration {
			return
		}
		w.operate()
		m := w.nodes[w.chance.IntN(w.Nodes)]
		if m.core == nil {
			return
		}
		value, err := (&kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetSetting{SetSetting: &kvdv1.SettingValue{
			Name: raftmeta.DiskStallExit, Value: time.Duration(30*time.Second + time.Duration(w.chance.IntN(60))*time.Second).String(),
		}}}).MarshalVT()
		if err != nil {
			w.fail("%v", err)
			return
		}
		command := &kv.Command{Op: kv.OpMeta, Value: value}
		m.process(0, func() {
			m.inbox.Submissions = append(m.inbox.Submissions, node.Submission{
				Shard: kv.MetaShard, Command: shard.EncodeCommand(command), Bytes: command.Size(),
				Waiter: waiter(func(_ kv.Result, err error) {
					if err == nil {
						w.stats.MetaCommands++
					}
				}),
			})
			m.wake()
		})
	})
}
