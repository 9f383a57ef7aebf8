package node

import (
	"bytes"
	"math"
	"sync/atomic"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/shard/loadcut"
)

// meter counts what a replica serves, and samples whose keys that is. Any goroutine that serves counts; the loop reads. It
// lies on the path of every read: counting is two additions, and only what is sampled allocates. A read of a key in memory
// takes about 225 ns with it and without it.
type meter struct {
	reads, writes, bytes atomic.Int64
	// second is the loop's time since the machine's boot: samples fade by it, and nobody who serves need read a clock.
	second atomic.Int64
	taken  atomic.Uint64
	ring   atomic.Pointer[ring] // nil until something was sampled: most replicas of many are idle.
}

// ring holds the latest samples.
type ring [kv.SamplesMax]atomic.Pointer[sample]

// sample is a key that was asked for.
type sample struct {
	key    []byte
	second int64
}

// sampled tells whether the request with a number is sampled: one in SampleEvery, and spread so that requests which come
// round in some order are all met, as they would not be if it were each SampleEvery-th.
func sampled(n uint64) bool { return n*0x9E3779B97F4A7C15 < math.MaxUint64/kv.SampleEvery }

// read counts a read of a key, with the bytes of what was found.
func (m *meter) read(key []byte, size int) {
	n := m.reads.Add(1)
	m.bytes.Add(int64(size))
	if sampled(uint64(n)) {
		m.sample(key)
	}
}

// scanned counts what a chunk of a scan shows: each item is a read, and a chunk without items one of its start.
func (m *meter) scanned(start []byte, items []kv.Item) {
	if len(items) == 0 {
		m.read(start, 0)
		return
	}
	last, size := uint64(m.reads.Add(int64(len(items)))), 0
	for i := range items {
		size += len(items[i].Key) + len(items[i].Record.Value)
		if sampled(last - uint64(i)) {
			m.sample(items[i].Key)
		}
	}
	m.bytes.Add(int64(size))
}

// sample remembers a key.
func (m *meter) sample(key []byte) {
	r := m.ring.Load()
	if r == nil {
		m.ring.CompareAndSwap(nil, &ring{})
		r = m.ring.Load()
	}
	r[m.taken.Add(1)%kv.SamplesMax].Store(&sample{key: bytes.Clone(key), second: m.second.Load()})
}

// recent gives the keys that were sampled in the last seconds.
func (m *meter) recent() [][]byte {
	r := m.ring.Load()
	if r == nil {
		return nil
	}
	var keys [][]byte
	since := m.second.Load() - int64(loadWindow/time.Second)
	for i := range r {
		if s := r[i].Load(); s != nil && s.second >= since {
			keys = append(keys, s.key)
		}
	}
	return keys
}

// totals gives what was served so far.
func (m *meter) totals() totals {
	return totals{reads: m.reads.Load(), writes: m.writes.Load(), bytes: m.bytes.Load()}
}

// cut gives the key at which a split of a span would halve its load, as the requests of the last seconds show it, or why
// there is none. What lies beside it in the data is not known yet.
func (v *View) cut(span kv.Span) (key []byte, reason string) {
	return loadcut.Choose(v.meter.recent(), span)
}

// hotKeys lists the keys of a span that most requests of the last seconds were for.
func (v *View) hotKeys(span kv.Span) []*kvdv1.HotKey {
	var list []*kvdv1.HotKey
	for _, h := range loadcut.Hottest(v.meter.recent(), span, kv.HotKeysMax) {
		list = append(list, &kvdv1.HotKey{Key: h.Key, Share: h.Share})
	}
	return list
}
