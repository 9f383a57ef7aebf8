package sim

import (
	"bytes"
	"cmp"
	"fmt"
	"strconv"
	"time"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/kv"
)

// request is what a client asks for at a time. The history has one operation for each key of it: the checkers judge keys
// one by one, and Cuts what was read of several at one moment.
type request struct {
	key   []byte     // That it is routed by.
	shard kv.ShardID // Which has it, as the node that was asked says.
	ops   []*check.Operation
	// command is nil for a read: of one key, or of the span.
	command *kv.Command
	span    kv.Span
	limit   int
	// take notes the answer to a command in the operations, which are done.
	take func(kv.Result)
	// cut: the gets among the operations show one moment.
	cut bool
	// wide is the scan over many shards that it is a part of.
	wide *wide
}

// Kinds of keys, by their number in a row: all of them that begin with one letter, the row's. At first each row is a shard. All others are written with and without an expiry.
const (
	counterKey = 0 // Only ever incremented.
	plainKey   = 1 // Written without an expiry.
)

// spanKeysMax is how many keys a span has at most that is read or removed.
const spanKeysMax = 4

func keyName(row, number int) string {
	return fmt.Sprintf("%c%02d", 'a'+row, number)
}

// draw draws what to ask for.
func (c *client) draw() *request {
	if c.wide != nil {
		return c.wide.next(c)
	}
	row := c.chance.IntN(c.Shards)
	number := c.chance.IntN(c.KeysPerShard)
	key := keyName(row, number)
	q := &request{key: []byte(key)}
	read := c.chance.IntN(100) < c.ReadPercent
	draw := c.chance.IntN(100)
	switch {
	case read && draw < cmp.Or(c.WidePercent, 2):
		return c.drawWide()
	case read && draw < cmp.Or(c.WidePercent, 2)+8:
		c.drawScan(q, row)
	case read:
		c.operation(q, check.Get, key)
	case number == counterKey:
		c.drawIncrement(q, key)
	case draw < 45:
		c.drawPut(q, key, number)
	case draw < 62:
		c.drawCAS(q, key, number)
	case draw < 74:
		c.drawDelete(q, key)
	case draw < 84:
		c.drawDeleteRange(q, row)
	default:
		c.drawTxn(q, row)
	}
	return q
}

// operation adds an operation to a request.
func (c *client) operation(q *request, kind check.Kind, key string) *check.Operation {
	o := &check.Operation{Process: c.process, Kind: kind, Key: key, Call: c.moment(), Outcome: check.Unknown}
	if kind == check.Put || kind == check.CAS {
		c.values++
		o.Value = "v" + strconv.Itoa(c.values)
	}
	q.ops = append(q.ops, o)
	return o
}

// known gives the operation, among the last ones, that knows a key's newest revision; nil if there is none.
func (c *client) known(key string) *check.Operation {
	for i := len(c.history) - 1; i >= 0 && i > len(c.history)-40; i-- {
		o := c.history[i]
		read := o.Kind == check.Get && o.Found
		if o.Key == key && o.Revision != 0 && (read || o.Kind == check.Put || o.Kind == check.CAS && o.Succeeded) {
			return o
		}
	}
	return nil
}

// expiry draws how long a value is to live, if not for ever.
func (c *client) expiry(o *check.Operation, number int) (ttl, expireAt int64) {
	if number == plainKey || c.ExpireOneIn == 0 || !oneIn(c.chance, c.ExpireOneIn) {
		return 0, 0
	}
	after := between(c.chance, 20*time.Millisecond, 1500*time.Millisecond)
	if oneIn(c.chance, 2) {
		ttl = after.Milliseconds()
		o.TTL = ttl * int64(time.Millisecond)
		return ttl, 0
	}
	expireAt = epochMs + (c.now + after).Milliseconds()
	o.ExpireAt = momentOf(expireAt)
	return 0, expireAt
}

func (c *client) drawIncrement(q *request, key string) {
	o := c.operation(q, check.Increment, key)
	o.Delta = c.chance.Int64N(5) - 1
	q.command = &kv.Command{Op: kv.OpIncrement, Key: []byte(key), Delta: o.Delta}
	q.take = func(r kv.Result) { o.Observed, o.Revision = strconv.FormatInt(r.Counter, 10), r.Revision }
}

func (c *client) drawPut(q *request, key string, number int) {
	o := c.operation(q, check.Put, key)
	q.command = &kv.Command{Op: kv.OpPut, Key: []byte(key), Value: []byte(o.Value)}
	q.command.TTL, q.command.ExpireAt = c.expiry(o, number)
	q.take = func(r kv.Result) { o.Revision = r.Revision }
}

func (c *client) drawCAS(q *request, key string, number int) {
	o := c.operation(q, check.CAS, key)
	o.Expect = c.guess(key)
	q.command = &kv.Command{Op: kv.OpPut, Key: []byte(key), Value: []byte(o.Value), Cond: condition(o.Expect)}
	q.command.TTL, q.command.ExpireAt = c.expiry(o, number)
	q.take = func(r kv.Result) { o.Succeeded, o.Revision = r.Status == kv.Done, r.Revision }
}

// guess gives a revision that a key may have; 0 for none.
func (c *client) guess(key string) kv.Revision {
	if last := c.known(key); last != nil {
		return last.Revision
	}
	return kv.Revision(c.chance.IntN(3))
}

func condition(expect kv.Revision) kv.Condition {
	if expect == 0 {
		return kv.Condition{Kind: kv.IfAbsent}
	}
	return kv.Condition{Kind: kv.IfRevision, Revision: expect}
}

func (c *client) drawDelete(q *request, key string) {
	o := c.operation(q, check.Delete, key)
	q.command = &kv.Command{Op: kv.OpDelete, Key: []byte(key)}
	if oneIn(c.chance, 2) {
		if o.Expect = c.guess(key); o.Expect != 0 {
			q.command.Cond = condition(o.Expect)
		}
	}
	q.take = func(r kv.Result) {
		switch {
		case r.Status == kv.ConditionFailed:
			o.Kind, o.Revision = check.CAS, r.Revision
		case r.Found:
			o.Found, o.Revision = true, r.Revision
		case o.Expect != 0:
			c.fail("%v was done, and found nothing", o)
		}
	}
}

// drawDeleteRange removes keys of a row, but no counter.
func (c *client) drawDeleteRange(q *request, row int) {
	first := plainKey + c.chance.IntN(c.KeysPerShard-plainKey)
	last := first + c.chance.IntN(min(spanKeysMax, c.KeysPerShard-first))
	for n := first; n <= last; n++ {
		c.operation(q, check.Clear, keyName(row, n))
	}
	q.key = []byte(keyName(row, first))
	q.command = &kv.Command{
		Op: kv.OpDeleteRange, Key: []byte(keyName(row, first)), End: []byte(keyName(row, last+1)), Limit: c.chance.IntN(3),
	}
	q.take = func(r kv.Result) {
		swept := q.ops
		for i, o := range q.ops {
			if r.Resume != nil && bytes.Compare([]byte(o.Key), r.Resume) >= 0 {
				for _, o := range q.ops[i:] {
					o.Outcome = check.NotDone
				}
				swept = q.ops[:i]
				break
			}
		}
		if r.Count > len(swept) {
			c.fail("%d keys of %d were removed from %s on, up to %q", r.Count, len(swept), q.command.Key, r.Resume)
		}
		for _, o := range swept {
			o.Revision = r.Revision
			switch r.Count {
			case 0:
				o.Kind, o.Revision = check.Delete, 0
			case len(swept):
				o.Kind, o.Found = check.Delete, true
			}
		}
	}
}

// drawScan reads a span of a row, or the beginning of it.
func (c *client) drawScan(q *request, row int) {
	first := c.chance.IntN(max(1, c.KeysPerShard-spanKeysMax+1))
	end := min(first+spanKeysMax, c.KeysPerShard)
	for n := first; n < end; n++ {
		c.operation(q, check.Get, keyName(row, n))
	}
	q.span = kv.Span{Start: []byte(keyName(row, first)), End: []byte(keyName(row, end))}
	q.key, q.cut = q.span.Start, true
	q.limit = c.chance.IntN(3)
}

// scanned notes a chunk.
func (c *client) scanned(q *request, chunk kv.Chunk) {
	items := chunk.Items
	for _, o := range q.ops {
		switch {
		case chunk.Resume != nil && bytes.Compare([]byte(o.Key), chunk.Resume) >= 0:
			o.Outcome = check.NotDone
		case len(items) > 0 && string(items[0].Key) == o.Key:
			got(o, true, items[0].Record)
			items = items[1:]
		}
	}
	if len(items) > 0 || chunk.Resume != nil && bytes.Compare(chunk.Resume, q.span.Start) <= 0 {
		c.fail("a scan of %v gave %+v, in disorder or beyond %q", q.span, chunk.Items, chunk.Resume)
	}
	if q.wide != nil {
		q.wide.read(chunk)
	}
}

// got notes what a read found.
func got(o *check.Operation, found bool, rec kv.Record) {
	if o.Found = found; found {
		o.Observed, o.Revision, o.ExpireAt = string(rec.Value), rec.Revision, momentOf(rec.ExpireAt)
	}
}

// drawTxn draws a transaction over two keys of a row: one that reads, one that reads and writes, one that writes on a
// condition, one on two.
func (c *client) drawTxn(q *request, row int) {
	a := plainKey + c.chance.IntN(c.KeysPerShard-plainKey)
	b := plainKey + (a-plainKey+1+c.chance.IntN(c.KeysPerShard-plainKey-1))%(c.KeysPerShard-plainKey)
	x := &txn{client: c, request: q, txn: &kv.Txn{}, a: keyName(row, a), b: keyName(row, b), numbers: [2]int{a, b}}
	q.key = []byte(x.a)
	q.command = &kv.Command{Op: kv.OpTxn, Txn: x.txn}
	switch c.chance.IntN(4) {
	case 0:
		x.reads(keyName(row, counterKey))
	case 1:
		x.readsAndWrites(keyName(row, counterKey))
	case 2:
		x.onCondition()
	default:
		x.onTwo()
	}
}

// txn is a transaction that is being drawn.
type txn struct {
	*client
	*request
	txn     *kv.Txn
	a, b    string
	numbers [2]int
}

func (x *txn) get(key string) (*check.Operation, kv.TxnOp) {
	return x.operation(x.request, check.Get, key), kv.TxnOp{Kind: kv.TxnGet, Key: []byte(key)}
}

func (x *txn) put(kind check.Kind, key string, number int) (*check.Operation, kv.TxnOp) {
	o := x.operation(x.request, kind, key)
	op := kv.TxnOp{Kind: kv.TxnPut, Key: []byte(key), Value: []byte(o.Value)}
	op.TTL, op.ExpireAt = x.expiry(o, number)
	return o, op
}

func (x *txn) reads(third string) {
	for _, key := range []string{x.a, x.b, third} {
		_, op := x.get(key)
		x.txn.Then = append(x.txn.Then, op)
	}
	x.cut = true
	x.take = func(r kv.Result) {
		for i, o := range x.ops {
			got(o, r.Ops[i].Found, r.Ops[i].Record)
		}
	}
}

func (x *txn) readsAndWrites(third string) {
	before, getA := x.get(x.a)
	counter, getThird := x.get(third)
	putA, opA := x.put(check.Put, x.a, x.numbers[0])
	putB, opB := x.put(check.Put, x.b, x.numbers[1])
	x.txn.Then = []kv.TxnOp{getA, getThird, opA, opB, {Kind: kv.TxnGet, Key: []byte(x.b)}}
	x.cut = true
	x.take = func(r kv.Result) {
		got(before, r.Ops[0].Found, r.Ops[0].Record)
		got(counter, r.Ops[1].Found, r.Ops[1].Record)
		putA.Revision, putB.Revision = r.Revision, r.Revision
		if now := r.Ops[4]; now.Found && string(now.Record.Value) != putB.Value || !now.Found && putB.TTL == 0 && putB.ExpireAt == 0 {
			x.fail("a transaction that wrote %v read %+v", putB, now)
		}
	}
}

// compare gives a condition on the first key, and the revision that it stands for: no two writes have one value.
func (x *txn) compare() (kv.Compare, kv.Revision) {
	last := x.known(x.a)
	switch {
	case last == nil:
		return kv.Compare{Key: []byte(x.a), Cond: condition(0)}, 0
	case oneIn(x.chance, 2):
		return kv.Compare{Key: []byte(x.a), Cond: condition(last.Revision)}, last.Revision
	}
	value := last.Value
	if last.Kind == check.Get {
		value = last.Observed
	}
	return kv.Compare{Key: []byte(x.a), Cond: kv.Condition{Kind: kv.IfValue, Value: []byte(value)}}, last.Revision
}

// otherwise reads both keys when the comparisons fail; the answer is noted in the first operation and in another one.
func (x *txn) otherwise(other *check.Operation) (first *check.Operation, fail func(kv.Result)) {
	first, getA := x.get(x.a)
	x.txn.Else = []kv.TxnOp{getA, {Kind: kv.TxnGet, Key: []byte(x.b)}}
	x.cut = true
	return first, func(r kv.Result) {
		got(first, r.Ops[0].Found, r.Ops[0].Record)
		other.Kind, other.Value, other.TTL, other.ExpireAt = check.Get, "", 0, 0
		got(other, r.Ops[1].Found, r.Ops[1].Record)
	}
}

func (x *txn) onCondition() {
	compare, expect := x.compare()
	cas, opA := x.put(check.CAS, x.a, x.numbers[0])
	put, opB := x.put(check.Put, x.b, x.numbers[1])
	cas.Expect = expect
	x.txn.Compare, x.txn.Then = []kv.Compare{compare}, []kv.TxnOp{opA, opB}
	first, fail := x.otherwise(put)
	x.take = func(r kv.Result) {
		if r.Succeeded {
			first.Outcome = check.NotDone
			cas.Succeeded, cas.Revision, put.Revision = true, r.Revision, r.Revision
			return
		}
		fail(r)
		cas.Revision = first.Revision
	}
}

func (x *txn) onTwo() {
	compare, expect := x.compare()
	present := kv.Condition{Kind: kv.IfPresent}
	if oneIn(x.chance, 3) {
		present = condition(0)
	}
	cas, opA := x.put(check.CAS, x.a, x.numbers[0])
	cas.Expect = expect
	del := x.operation(x.request, check.Delete, x.b)
	x.txn.Compare = []kv.Compare{compare, {Key: []byte(x.b), Cond: present}}
	x.txn.Then = []kv.TxnOp{opA, {Kind: kv.TxnDelete, Key: []byte(x.b)}}
	first, fail := x.otherwise(del)
	x.take = func(r kv.Result) {
		there := present.Kind == kv.IfPresent
		if r.Succeeded {
			first.Outcome = check.NotDone
			cas.Succeeded, cas.Revision = true, r.Revision
			if del.Found = r.Ops[1].Found; del.Found {
				del.Revision = r.Revision
			}
			if del.Found != there {
				x.fail("a transaction on the condition %+v gave %+v", x.txn.Compare[1], r.Ops[1])
			}
			return
		}
		// Which of the two failed is not told, but has to follow from what was read.
		cas.Outcome = check.NotDone
		fail(r)
		if first.Revision == expect && del.Found == there {
			x.fail("a transaction failed, and both conditions hold: %v, %v", first, del)
		}
	}
}
