package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/internal/wait"
	"github.com/kvdstore/kvd/kv"
)

const (
	writers, readers = 8, 8
	// counting are the writers that increment.
	counting = 2
	// Of the keys so many are written and read all the time; others are only there to be scanned and moved.
	liveKeys, counters, fleetingKeys = 2000, 32, 200
	// scanEvery is the pause between two scans.
	scanEvery = 100 * time.Millisecond
	// shownMost bounds what is told of each kind of problem.
	shownMost = 10
)

// geohashChars are those of a geohash, in order.
const geohashChars = "0123456789bcdefghjkmnpqrstuvwxyz"

// keyspace is what the workers use.
type keyspace struct {
	span     kv.Span
	all      [][]byte // In no order; the first of them are the live ones.
	live     [][]byte
	counters [][]byte
	fleeting [][]byte
}

// geoKey is a geohash of 6 and a number, both by chance. Places lie close together: the first characters are few.
func geoKey(rng *rand.Rand, prefix string, n int) []byte {
	b := []byte(prefix)
	for i := range 6 {
		some := len(geohashChars)
		if i < 2 {
			some = 6
		}
		b = append(b, geohashChars[rng.IntN(some)])
	}
	return strconv.AppendInt(append(b, '/'), int64(n), 10)
}

func newKeyspace(rng *rand.Rand, prefix string, n int) *keyspace {
	k := &keyspace{span: kv.PrefixSpan([]byte(prefix))}
	for i := range n + fleetingKeys {
		key := geoKey(rng, prefix, i)
		if i < n {
			k.all = append(k.all, key)
		} else {
			k.fleeting = append(k.fleeting, key)
		}
	}
	k.counters = k.all[:min(counters, n/4)]
	k.live = k.all[len(k.counters):min(len(k.counters)+liveKeys, n)]
	return k
}

// worker is one thread of a client: it does one operation at a time, and remembers them.
type worker struct {
	t       *trial
	process int
	client  *client.Client
	rng     *rand.Rand
	history check.History
	step    func(w *worker) check.Operation

	value int
	known map[string]kv.Revision // Revisions of keys as this writer left them.
	there map[string]bool        // Of its fleeting keys, those that it has put.
}

// run does operations at a steady rate, and no faster after a pause, until the context ends.
func (w *worker) run(ctx context.Context) {
	every := time.Duration(writers+readers) * time.Second / time.Duration(w.t.rate)
	due := time.Now().Add(time.Duration(w.rng.Int64N(int64(every))))
	for {
		if wait.For(ctx, time.Until(due)) != nil {
			return
		}
		w.history = append(w.history, w.step(w))
		if due = due.Add(every); time.Since(due) > 0 {
			due = time.Now()
		}
	}
}

func pick(rng *rand.Rand, list [][]byte) []byte { return list[rng.IntN(len(list))] }

// done notes when an operation has ended, and how.
func (w *worker) done(o *check.Operation, err error) {
	o.Return, o.Outcome = w.t.now(), check.Done
	switch {
	case err == nil:
		return
	case errors.Is(err, client.ErrNotDone):
		o.Outcome = check.NotDone
	default:
		o.Outcome = check.Unknown
	}
	w.t.problem("a client got an error: %v %s at %.3f s after %v: %v", o.Kind, kv.FormatKey([]byte(o.Key)),
		float64(o.Call)/1e9, time.Duration(o.Return-o.Call).Round(time.Millisecond), err)
}

func (w *worker) begin(kind check.Kind, key []byte) check.Operation {
	return check.Operation{Process: w.process, Kind: kind, Key: string(key), Call: w.t.now()}
}

// The clients are used without a deadline: they have one of their own.

func (w *worker) put(key []byte) check.Operation { return w.write(w.begin(check.Put, key)) }

func (w *worker) cas(key []byte, expect kv.Revision) check.Operation {
	o := w.begin(check.CAS, key)
	o.Expect = expect
	return w.write(o, client.IfRevision(expect))
}

func (w *worker) write(o check.Operation, list ...client.WriteOption) check.Operation {
	w.value++
	o.Value = fmt.Sprintf("%d.%d", w.process, w.value)
	r, err := w.client.Put(context.Background(), []byte(o.Key), []byte(o.Value), list...)
	w.done(&o, err)
	o.Succeeded, o.Revision = r.Succeeded, r.Revision
	if err == nil {
		w.known[o.Key] = r.Revision
	}
	return o
}

func (w *worker) delete(key []byte) check.Operation {
	o := w.begin(check.Delete, key)
	r, err := w.client.Delete(context.Background(), key)
	w.done(&o, err)
	if o.Found = r.Found; r.Found {
		o.Revision = r.Revision
	}
	return o
}

func (w *worker) increment(key []byte) check.Operation {
	o := w.begin(check.Increment, key)
	o.Delta = 1 + w.rng.Int64N(9)
	value, revision, err := w.client.Increment(context.Background(), key, o.Delta)
	w.done(&o, err)
	if err == nil {
		o.Observed, o.Revision = strconv.FormatInt(value, 10), revision
	}
	return o
}

func (w *worker) get(key []byte) check.Operation {
	o := w.begin(check.Get, key)
	item, found, err := w.client.Get(context.Background(), key)
	w.done(&o, err)
	o.Found, o.Observed, o.Revision = found, string(item.Record.Value), item.Record.Revision
	return o
}

// change is a step of a writer: mostly a put, some with a condition, some of new keys, some of keys that come and go.
func (w *worker) change() check.Operation {
	switch n := w.rng.IntN(100); {
	case n < 10:
		key := pick(w.rng, w.t.keys.live)
		for i := 0; i < 20 && w.known[string(key)] == 0; i++ {
			key = pick(w.rng, w.t.keys.live)
		}
		return w.cas(key, max(w.known[string(key)], 1))
	case n < 12:
		o := w.put(geoKey(w.rng, w.t.prefix, w.t.nextKey()))
		if o.Outcome == check.Done {
			w.t.added(o.Key)
		}
		return o
	case n < 20:
		i := w.rng.IntN(fleetingKeys/writers)*writers + w.process
		key := w.t.keys.fleeting[i]
		was := w.there[string(key)]
		w.there[string(key)] = !was
		if was {
			return w.delete(key)
		}
		return w.put(key)
	}
	return w.put(pick(w.rng, w.t.keys.live))
}

// read is a step of a reader.
func (w *worker) read() check.Operation {
	switch n := w.rng.IntN(100); {
	case n < 10:
		return w.get(pick(w.rng, w.t.keys.counters))
	case n < 20:
		return w.get(pick(w.rng, w.t.keys.fleeting))
	}
	return w.get(pick(w.rng, w.t.keys.live))
}

func (w *worker) count() check.Operation { return w.increment(pick(w.rng, w.t.keys.counters)) }

// known are the keys that are there for good.
type known struct {
	mu   sync.Mutex
	list []string
	next int // Number of the next new key.
}

func (t *trial) nextKey() int {
	t.known.mu.Lock()
	defer t.known.mu.Unlock()
	t.known.next++
	return t.known.next
}

// added tells that a key is there for good.
func (t *trial) added(key string) {
	t.known.mu.Lock()
	defer t.known.mu.Unlock()
	t.known.list = append(t.known.list, key)
}

func (t *trial) there() []string {
	t.known.mu.Lock()
	defer t.known.mu.Unlock()
	return t.known.list[:len(t.known.list):len(t.known.list)]
}

// scanned is one scan.
type scanned struct {
	from, to int64
	keys     int
}

// scan scans again and again until the context ends.
func (t *trial) scan(ctx context.Context, c *client.Client) {
	for wait.For(ctx, scanEvery) == nil {
		t.scans = append(t.scans, t.scanOnce(c))
	}
}

// scanOnce checks that a scan gives every key that was known to be there at its beginning once, and all in order.
func (t *trial) scanOnce(c *client.Client) scanned {
	there := t.there()
	s := scanned{from: t.now()}
	seen := make(map[string]struct{}, len(there))
	var last []byte
	for item, err := range c.Scan(context.Background(), client.ScanOptions{Span: t.keys.span, KeysOnly: true}) {
		if err != nil {
			t.problem("a scan got an error after %d keys: %v", len(seen), err)
			s.to = t.now()
			return s
		}
		if last != nil && bytes.Compare(last, item.Key) >= 0 {
			t.problem("a scan gave %s after %s", kv.FormatKey(item.Key), kv.FormatKey(last))
		}
		last = item.Key
		seen[string(item.Key)] = struct{}{}
	}
	s.to, s.keys = t.now(), len(seen)
	for _, key := range there {
		if _, ok := seen[key]; !ok {
			t.problem("a scan that began at %.3f s and gave %d keys lacks %s, which is there", float64(s.from)/1e9, len(seen), kv.FormatKey([]byte(key)))
		}
	}
	return s
}
