package node

import (
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/shard"
)

// loadWindow is over how long the load of a shard is counted.
const loadWindow = 10 * time.Second

// totals are what a replica has served so far: reads, with the items of scans, commands that wrote, and the bytes of the
// keys and values of both.
type totals struct{ reads, writes, bytes int64 }

// reading is what the totals were at a time since the machine's boot.
type reading struct {
	at time.Duration
	totals
}

// rates are the readings of the last seconds, one a second, of one span: what a shard served before a split says nothing
// of what it serves after.
type rates struct {
	span    kv.Span
	leading bool
	list    []reading
}

// role begins anew when the replica begins to lead: what it was read as a follower would hide for seconds what the shard's
// load is, and the plan would take the node for an idle one.
func (r *rates) role(leading bool) {
	if leading && !r.leading {
		r.list = nil
	}
	r.leading = leading
}

// add takes the totals as they are now. Of the older ones one is kept that is as old as the window, unless there was none
// for so long that the time between would hide what is served now.
func (r *rates) add(span kv.Span, now reading) {
	if !r.span.Equal(span) {
		r.span, r.list = span, nil
	}
	r.list = append(r.list, now)
	for len(r.list) > 1 && (now.at-r.list[1].at >= loadWindow || now.at-r.list[0].at >= 2*loadWindow) {
		r.list = append(r.list[:0], r.list[1:]...)
	}
}

// perSecond gives reads, writes and bytes a second.
func (r *rates) perSecond() (reads, writes, bytes float64) {
	if len(r.list) < 2 {
		return 0, 0, 0
	}
	first, last := r.list[0], r.list[len(r.list)-1]
	seconds := (last.at - first.at).Seconds()
	return float64(last.reads-first.reads) / seconds, float64(last.writes-first.writes) / seconds, float64(last.bytes-first.bytes) / seconds
}

// readMeter takes a reading, once a second.
func (c *Core) readMeter(g *group) {
	m := &g.view.meter
	m.second.Store(int64(c.now.Boot / time.Second))
	_, leading := g.replica.Leading()
	g.rates.role(leading)
	g.rates.add(g.machine.Descriptor().Span, reading{at: c.now.Boot, totals: m.totals()})
}

// wrote counts what the step that is being finished writes. before is the revision before it. A revision that jumps with a
// merge, to that of the right shard, counts nothing.
func (g *group) wrote(before kv.Revision) {
	if g.machine.Absorbed() == nil {
		g.view.meter.writes.Add(int64(g.machine.Revision() - before))
	}
	size := 0
	for _, change := range g.machine.Changes() {
		size += len(change.Key)
		if change.Record != nil {
			size += len(change.Record.Value)
		}
	}
	g.view.meter.bytes.Add(int64(size))
}

// sample samples a client's command that is about to be proposed. What is applied would not do: a step names a key once,
// however often it was written.
func (g *group) sample(command *kvdv1.Command) {
	op := kv.Op(command.GetOp())
	if op != kv.OpPut && op != kv.OpDelete && op != kv.OpDeleteRange && op != kv.OpIncrement && op != kv.OpTxn {
		return
	}
	if g.offered++; !sampled(g.offered) {
		return
	}
	decoded, err := shard.DecodeCommand(command)
	if err != nil {
		return
	}
	var keys [][]byte
	decoded.Keys(func(key []byte) bool { keys = append(keys, key); return true })
	if len(keys) > 0 { // One of a Txn's: it is one request.
		g.view.meter.sample(keys[g.offered%uint64(len(keys))])
	}
}

// shardLoad describes the load of the last seconds.
func (g *group) shardLoad() *kvdv1.ShardLoad {
	load := &kvdv1.ShardLoad{}
	load.Reads, load.Writes, load.Bytes = g.rates.perSecond()
	if hot := g.view.hotKeys(g.machine.Descriptor().Span); len(hot) > 0 {
		load.HottestKey, load.HottestShare = hot[0].Key, hot[0].Share
	}
	return load
}
