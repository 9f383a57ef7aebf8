package check

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/kvdstore/kvd/kv"
)

// cluster makes correct histories: a real register, clients that overlap, and answers that get lost.
type cluster struct {
	rnd      *rand.Rand
	kinds    []Kind
	revision kv.Revision
	keys     map[string]*Final
	values   int
	// late holds unknown operations that have not happened yet.
	late []Operation
	// lossOneIn is how rarely an answer is lost; manyValues makes each written value unique.
	lossOneIn  int
	manyValues bool
	// A shard's time, the bounds that it keeps, and how rarely a write has no expiry; 0 for always.
	now          int64
	time         int64
	bounds       Bounds
	foreverOneIn int
}

func newCluster(seed uint64, kinds ...Kind) *cluster {
	return &cluster{rnd: rand.New(rand.NewPCG(seed, 1)), kinds: kinds, keys: map[string]*Final{}, lossOneIn: 8, manyValues: true}
}

// run has clients do so many operations on a key, one at a time each.
func (c *cluster) run(key string, clients, ops int) History {
	var h History
	free := make([]int64, clients)
	c.late = nil
	for i := range ops {
		c.tick(int64(i+1) * 100)
		c.catchUp()
		client := c.rnd.IntN(clients)
		// An operation takes effect at 100 times its number, so the effects come in the order of the loop.
		effect := int64(i+1) * 100
		call := max(free[client]+1, effect-c.rnd.Int64N(int64(clients)*100))
		o := Operation{Process: client, Key: key, Kind: c.kinds[c.rnd.IntN(len(c.kinds))], Call: min(call, effect), Outcome: Done}
		o.Return = effect + c.rnd.Int64N(int64(clients)*100)
		c.ask(&o)
		c.lose(&o)
		if o.Outcome == Unknown {
			o.Process = client + clients*(i+1)
		} else {
			free[client] = o.Return
		}
		h = append(h, o)
	}
	return h
}

func (c *cluster) ask(o *Operation) {
	switch o.Kind {
	case Put, CAS:
		c.values++
		o.Value = "v" + strconv.Itoa(c.values)
		if !c.manyValues {
			o.Value = "v" + strconv.Itoa(c.values%2)
		}
		if now := c.keys[o.Key]; o.Kind == CAS && now != nil && c.rnd.IntN(4) != 0 {
			o.Expect = now.Revision - kv.Revision(c.rnd.IntN(2))
		}
		c.expiry(o)
	case Increment:
		o.Delta = c.rnd.Int64N(3) - 1
	case Delete:
		if now := c.keys[o.Key]; now != nil && c.rnd.IntN(3) == 0 {
			o.Expect = now.Revision
		}
	}
}

// tick moves the clock, and sooner or later the shard's time after it; in any case when a key's time is long past.
func (c *cluster) tick(now int64) {
	c.now = now
	if c.foreverOneIn == 0 {
		return
	}
	stamp := c.rnd.IntN(3) == 0
	for _, f := range c.keys {
		stamp = stamp || f.ExpireAt != 0 && now > f.ExpireAt+c.bounds.Late
	}
	if stamp {
		c.stamp()
	}
	maps.DeleteFunc(c.keys, func(_ string, f *Final) bool { return f.ExpireAt != 0 && f.ExpireAt <= c.time })
}

// stamp moves the shard's time by some leader's clock.
func (c *cluster) stamp() {
	c.time = max(c.time, c.now-c.bounds.Skew+c.rnd.Int64N(2*c.bounds.Skew+1))
}

// expiry asks for one.
func (c *cluster) expiry(o *Operation) {
	switch {
	case c.foreverOneIn == 0 || c.rnd.IntN(c.foreverOneIn) == 0:
	case c.rnd.IntN(2) == 0:
		o.TTL = 1 + c.rnd.Int64N(3000)
	default:
		o.ExpireAt = max(1, c.now+c.rnd.Int64N(3000)-500)
	}
}

// lose takes effects and answers away: a refused operation does nothing, an unknown one may.
func (c *cluster) lose(o *Operation) {
	if c.rnd.IntN(c.lossOneIn) != 0 {
		c.apply(o)
		return
	}
	if c.rnd.IntN(2) == 0 {
		o.Outcome = NotDone
		return
	}
	switch c.rnd.IntN(3) {
	case 0:
		c.late = append(c.late, *o)
	case 1:
		c.apply(o)
	}
	o.Found, o.Succeeded, o.Observed, o.Revision = false, false, "", 0
	o.Outcome = Unknown
	if o.Kind == Get {
		o.ExpireAt = 0
	}
}

// catchUp lets an unknown operation happen, long after its client gave up.
func (c *cluster) catchUp() {
	if len(c.late) == 0 || c.rnd.IntN(6) != 0 {
		return
	}
	i := c.rnd.IntN(len(c.late))
	c.apply(&c.late[i])
	c.late = slices.Delete(c.late, i, i+1)
}

func (c *cluster) apply(o *Operation) {
	now := c.keys[o.Key]
	if now != nil && o.Kind != Increment {
		o.Revision, o.Found = now.Revision, o.Kind != Put && o.Kind != CAS && o.Kind != Clear
	}
	switch o.Kind {
	case Get:
		if now != nil {
			o.Observed, o.ExpireAt = now.Value, now.ExpireAt
		}
	case Put:
		c.write(o, o.Value)
	case CAS:
		if o.Succeeded = now == nil && o.Expect == 0 || now != nil && now.Revision == o.Expect; o.Succeeded {
			c.write(o, o.Value)
		}
	case Clear:
		c.revision++
		o.Revision = c.revision
		delete(c.keys, o.Key)
	case Delete:
		if o.Expect != 0 && (now == nil || now.Revision != o.Expect) {
			// Only one that comes late meets another key: its answer is lost.
			return
		}
		if now != nil {
			c.revision++
			o.Revision = c.revision
			delete(c.keys, o.Key)
		}
	case Increment:
		var n int64
		if now != nil {
			var err error
			if n, err = strconv.ParseInt(now.Value, 10, 64); err != nil {
				o.Outcome = NotDone
				return
			}
		}
		o.Observed = strconv.FormatInt(n+o.Delta, 10)
		c.write(o, o.Observed)
	}
}

func (c *cluster) write(o *Operation, value string) {
	c.revision++
	o.Revision = c.revision
	f := &Final{Value: value, Revision: c.revision, ExpireAt: o.ExpireAt}
	switch was := c.keys[o.Key]; {
	case o.Kind == Increment && was != nil:
		f.ExpireAt = was.ExpireAt
	case o.TTL != 0:
		c.stamp()
		f.ExpireAt = c.time + o.TTL
	}
	c.keys[o.Key] = f
	if f.ExpireAt != 0 && f.ExpireAt <= c.time {
		delete(c.keys, o.Key)
	}
}

func (c *cluster) final() map[string]Final {
	final := map[string]Final{}
	for key, f := range c.keys {
		final[key] = *f
	}
	return final
}

// spoil changes one answer, and says how.
func spoil(rnd *rand.Rand, h History) string {
	o := &h[rnd.IntN(len(h))]
	was := o.String()
	switch rnd.IntN(6) {
	case 0:
		o.Revision += kv.Revision(rnd.IntN(3)) - 1
	case 1:
		o.Observed = "v" + strconv.Itoa(rnd.IntN(6)+1)
	case 2:
		o.Found = !o.Found
	case 3:
		o.Succeeded = !o.Succeeded
	case 4:
		o.Outcome = Outcome(rnd.IntN(3) + 1)
	case 5:
		if o.Kind != Put && o.Kind != CAS && !(o.Kind == Get && o.Found) {
			break
		}
		if o.ExpireAt != 0 {
			o.ExpireAt = max(1, o.ExpireAt+rnd.Int64N(800)-400)
		}
	}
	return fmt.Sprintf("%s became %s", was, o)
}
