package check

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

func (o Operation) ttl(ttl int64) Operation {
	o.TTL = ttl
	return o
}

func (o Operation) expireAt(moment int64) Operation {
	o.ExpireAt = moment
	return o
}

// gone is a read that did not find the key.
func gone(call, ret int64) Operation { return op(Get, "", call, ret, 0) }

// TestExpiry: keys may be seen 10 after their time, and no clock is off by more than 2.
func TestExpiry(t *testing.T) {
	const none Rule = ""
	a := op(Put, "a", 1, 2, 1).expireAt(100)
	aFor := op(Put, "a", 1, 3, 1).ttl(100)
	b := op(Put, "b", 50, 51, 2)
	for _, c := range []struct {
		name string
		h    History
		rule Rule
	}{
		{"it is there, then gone", History{a, op(Get, "a", 96, 97, 1).expireAt(100), gone(98, 99)}, none},
		{"it is gone before its time", History{a, gone(90, 97)}, GoneEarly},
		{"it may be gone at the end of a long read", History{a, gone(90, 98)}, none},
		{"it never expires, and is gone", History{a, b, op(Get, "b", 52, 53, 2), gone(120, 121)}, GoneEarly},
		{"it is seen a little late", History{a, op(Get, "a", 112, 113, 1).expireAt(100)}, none},
		{"it is seen too late", History{a, op(Get, "a", 113, 114, 1).expireAt(100)}, SeenExpired},
		{"it is met too late by a conditional put", History{a, op(CAS, "b", 113, 114, 2).expect(1)}, NotLinearizable},
		{"it is met too late by a conditional put that fails", History{a, op(CAS, "b", 113, 114, 1).failed()}, NotLinearizable},
		{"it is deleted too late", History{a, op(Delete, "", 113, 114, 2)}, NotLinearizable},
		{"it is deleted in time", History{a, op(Delete, "", 112, 113, 2)}, none},
		{"it comes back", History{a, gone(101, 102), op(Get, "a", 103, 104, 1).expireAt(100)}, BackAgain},
		{"it comes and goes while reads overlap", History{a, gone(101, 105), op(Get, "a", 103, 104, 1).expireAt(100)}, none},
		{"a conditional put finds it gone, a later read does not", History{a, op(CAS, "b", 101, 102, 2), op(Get, "a", 103, 104, 1).expireAt(100)}, BackAgain},
		{"a time to live", History{aFor, op(Get, "a", 96, 97, 1).expireAt(102), gone(100, 101)}, none},
		{"a time to live is cut short", History{aFor, gone(50, 96)}, GoneEarly},
		{"a time to live whose end was told", History{aFor, op(Get, "a", 4, 5, 1).expireAt(105), gone(50, 102)}, GoneEarly},
		{"a time to live that lasts", History{aFor, op(CAS, "b", 118, 119, 1).failed()}, NotLinearizable},
		{"a time to live with an end that cannot be", History{aFor, op(Get, "a", 4, 5, 1).expireAt(106)}, ExpiryChanged},
		{"an end that nobody asked for", History{op(Put, "b", 1, 2, 1), op(Get, "b", 4, 5, 1).expireAt(106)}, ExpiryChanged},
		{"an end that was forgotten", History{a, op(Get, "a", 4, 5, 1)}, ExpiryChanged},
		{"two ends", History{aFor, op(Get, "a", 4, 5, 1).expireAt(102), op(Get, "a", 6, 7, 1).expireAt(103)}, ExpiryChanged},
		{"another put forgets the end", History{a, b, op(Get, "b", 150, 151, 2)}, none},
		{"another put is gone at the old end", History{a, b, gone(150, 151)}, GoneEarly},
		{"a second put is gone too early", History{a, op(Put, "b", 50, 51, 2).expireAt(200), gone(150, 151)}, GoneEarly},
		{"an increment keeps the end", History{op(Put, "1", 1, 2, 1).expireAt(100), op(Increment, "2", 50, 51, 2), op(Get, "2", 52, 53, 2).expireAt(100), gone(101, 102)}, none},
		{"an increment forgets the end", History{op(Put, "1", 1, 2, 1).expireAt(100), op(Increment, "2", 50, 51, 2), op(Get, "2", 52, 53, 2)}, NotLinearizable},
		{"an increment makes it stay", History{op(Put, "1", 1, 2, 1).expireAt(100), op(Increment, "2", 50, 51, 2), op(Increment, "3", 120, 121, 3)}, NotLinearizable},
		{"an increment begins again after the end", History{op(Put, "1", 1, 2, 1).expireAt(100), op(Increment, "2", 50, 51, 2), op(Increment, "1", 120, 121, 3)}, none},
		{"it was deleted before", History{a, op(Delete, "", 10, 11, 2), gone(12, 13)}, none},
		{"an unknown delete may be why it is gone", History{a, op(Delete, "", 10, 11, 2).unknown(), gone(12, 13)}, none},
		{"a refused delete is not", History{a, op(Delete, "", 10, 11, 2).notDone(), gone(12, 13)}, GoneEarly},
		{"an unknown put with an end may be why it is gone", History{b, op(Put, "c", 60, 61, 0).expireAt(100).unknown(), gone(120, 121)}, none},
		{"two of those, the second first", History{
			b, op(Put, "c", 60, 61, 0).expireAt(300).unknown(), op(Put, "d", 61, 62, 0).expireAt(100).unknown(), gone(120, 121),
			op(Put, "e", 130, 131, 9), gone(320, 321),
		}, none},
		{"or why an increment begins again", History{op(Put, "7", 1, 2, 1), op(Put, "c", 60, 61, 0).expireAt(100).unknown(), op(Increment, "1", 120, 121, 5)}, none},
		{"or why an unknown increment does", History{
			op(Put, "7", 1, 2, 1), op(Put, "c", 60, 61, 0).expireAt(100).unknown(), op(Increment, "1", 120, 121, 0).unknown(), op(Get, "1", 130, 131, 5),
		}, none},
		{"or why an unknown conditional put is done", History{
			b, op(Put, "c", 60, 61, 0).expireAt(100).unknown(), op(CAS, "d", 120, 121, 0).unknown(), op(Get, "d", 130, 131, 5),
		}, none},
		{"not before that end", History{b, op(Put, "c", 60, 61, 0).expireAt(100).unknown(), gone(90, 97)}, NotLinearizable},
		{"an unknown put with an end is read, and gone too early", History{op(Put, "c", 60, 61, 0).expireAt(100).unknown(), op(Get, "c", 70, 71, 5).expireAt(100), gone(90, 97)}, NotLinearizable},
		{"an unknown put with an end is read, and stays", History{op(Put, "c", 60, 61, 0).expireAt(100).unknown(), op(Get, "c", 70, 71, 5).expireAt(100), op(Delete, "", 113, 114, 6)}, NotLinearizable},
		{"an unknown put with an end is told with another", History{op(Put, "c", 60, 61, 0).expireAt(100).unknown(), op(Get, "c", 70, 71, 5).expireAt(101)}, NotLinearizable},
		{"its time was over when it was written", History{op(Put, "a", 200, 201, 1).expireAt(100), gone(202, 203)}, none},
		{"it is seen too late, while its write is under way", History{op(Put, "a", 1, 200, 1).expireAt(100), op(CAS, "b", 113, 114, 1).failed()}, NotLinearizable},
		{"its time was over when it was written, and it is seen", History{op(Put, "a", 200, 201, 1).expireAt(100), op(Get, "a", 202, 203, 1).expireAt(100)}, SeenExpired},
		{"a stale read beside an expiry", History{a, op(Put, "b", 50, 51, 2).expireAt(200), op(Get, "a", 52, 53, 1).expireAt(100)}, NotLinearizable},
		{"it is written and seen late, by who asked in time", History{
			op(Put, "o", 1, 2, 1), op(Put, "c", 60, 61, 0).expireAt(100).unknown(), op(Get, "c", 70, 131, 5).expireAt(100), op(Get, "o", 115, 116, 1),
		}, none},
		{"it is seen late by who asked in time, and stays", History{
			op(Put, "o", 1, 2, 1), op(Put, "c", 60, 61, 0).expireAt(100).unknown(), op(Get, "c", 70, 131, 5).expireAt(100), op(Get, "o", 115, 116, 1), op(Delete, "", 132, 133, 6),
		}, NotLinearizable},
		{"it is met too late, beside a long increment that met another", History{a, op(Increment, "5", 50, 900, 9), op(CAS, "4", 500, 501, 7).expect(1)}, NotLinearizable},
		{"no expiry, stale", History{op(Put, "a", 1, 2, 1), b, op(Get, "a", 60, 61, 1)}, NotLinearizable},
		{"a time past all clocks", History{op(Put, "a", 1, 2, 1).expireAt(math.MaxInt64), op(Get, "a", 200, 201, 1).expireAt(math.MaxInt64)}, none},
		{"an expiry without a revision", History{op(Put, "a", 1, 2, 0).expireAt(100)}, BadHistory},
		{"an expiry of a delete", History{op(Delete, "", 1, 2, 3).expireAt(100)}, BadHistory},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := Expiry(c.h, Bounds{Late: 10, Skew: 2}, patience)
			if c.rule == none {
				require.Empty(t, found)
				return
			}
			require.NotEmpty(t, found)
			require.Equal(t, c.rule, found[0].Rule, "%v", found[0])
		})
	}
	require.Equal(t, BadHistory, Linearizable(History{a}, patience)[0].Rule)
	require.Equal(t, BadHistory, Expiry(History{a}, Bounds{Late: -1}, patience)[0].Rule)
}

// newExpiring is a cluster in which most writes have an expiry.
func newExpiring(seed uint64, kinds ...Kind) *cluster {
	c := newCluster(seed, kinds...)
	c.bounds, c.foreverOneIn = Bounds{Late: 300, Skew: int64(seed % 3 * 40)}, 4
	return c
}

func TestGeneratedExpiriesPass(t *testing.T) {
	var absences, reads int
	for seed := range uint64(90) {
		kinds := [][]Kind{{Get, Get, Put}, {Get, Get, Put, CAS, Delete, Clear}, {Get, Put, Increment}}[seed%3]
		c := newExpiring(seed, kinds...)
		c.lossOneIn = 4 + int(seed%8)
		h := c.run("k", 4, 100)
		for _, o := range h {
			if o.absent() {
				absences++
			}
			if o.Kind == Get && o.expires() {
				reads++
			}
		}
		require.Empty(t, Expiry(h, c.bounds, patience), "seed %d", seed)
		require.Empty(t, Revisions(h), "seed %d", seed)
		require.Empty(t, NoLostWrites(h, c.final()), "seed %d", seed)
		c.tick(h.end() + 1)
		require.Empty(t, Expiry(h.Ended(c.now, c.final()), c.bounds, patience), "seed %d", seed)
	}
	require.Greater(t, absences, 300)
	require.Greater(t, reads, 300)
}

// TestExpiryAgainstAllTimes compares with a search through all orders in which every effect has a time.
func TestExpiryAgainstAllTimes(t *testing.T) {
	kinds := [][]Kind{{Get, Put}, {Get, Get, Put, Delete}, {Get, Put, CAS, Delete}, {Get, Put, CAS, Increment}, {Get, Put, CAS, Clear}}
	var right, wrong, vague int
	for seed := range uint64(12_000) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		c := newExpiring(seed, kinds[rnd.IntN(len(kinds))]...)
		c.lossOneIn = 3 + rnd.IntN(6)
		h := c.run("k", 3, 3+rnd.IntN(4))
		// The reference knows moments of expiry only.
		for i := range h {
			if h[i].TTL != 0 {
				h[i].TTL, h[i].ExpireAt = 0, h[i].Call+h[i].TTL
			}
		}
		story := spoil(rnd, h)
		if h.Validate() != nil {
			continue
		}
		want := anyTimes(h, c.bounds)
		found := Expiry(h, c.bounds, patience)
		lenient := slices.ContainsFunc(h, func(o Operation) bool {
			latest := o.ExpireAt + c.bounds.Late + c.bounds.Skew
			over := o.wrote() && o.Return > latest
			long := slices.ContainsFunc(h, func(p Operation) bool {
				revision, met := p.meets()
				met = met && (revision == o.Revision || revision == 0 && (p.Revision == 0 || p.Revision > o.Revision))
				return met && p.Call <= latest && p.Return > latest
			})
			return o.expires() && (o.mayHaveWritten() || over || long)
		})
		if lenient && !want {
			vague++
			continue
		}
		if want {
			right++
		} else {
			wrong++
		}
		require.Equal(t, want, len(found) == 0, "seed %d, %s, %+v:\n%s%v", seed, story, c.bounds, show(h), found)
	}
	require.Greater(t, right, 3000)
	require.Greater(t, wrong, 1500, "and %d on which Expiry is lenient", vague)
}

// anyTimes reports whether some order explains the answers in which each effect comes as early as it may.
func anyTimes(h History, b Bounds) bool {
	var left []*Operation
	revisions := map[kv.Revision]bool{}
	for i := range h {
		if h[i].Outcome != NotDone && (h[i].Outcome == Done || h[i].Kind != Get) {
			left = append(left, &h[i])
		}
		revisions[h[i].Revision*scale] = true
		revisions[h[i].Expect*scale] = true
	}
	delete(revisions, 0)
	return (&timeline{b, revisions}).try(left, nil, 0, 0)
}

type timeline struct {
	Bounds
	revisions map[kv.Revision]bool
}

func (l *timeline) try(left []*Operation, now *Final, lowest kv.Revision, moment int64) bool {
	if !slices.ContainsFunc(left, func(o *Operation) bool { return o.Outcome == Done }) {
		return true
	}
	for i, o := range left {
		rest := slices.Delete(slices.Clone(left), i, i+1)
		at := max(moment, o.Call)
		if now == nil || now.ExpireAt == 0 {
			if l.apply(o, rest, now, lowest, at) {
				return true
			}
			continue
		}
		stays := o.Call <= now.ExpireAt+l.Late+l.Skew && l.apply(o, rest, now, lowest, at)
		if stays || l.apply(o, rest, nil, lowest, max(at, now.ExpireAt-l.Skew)) {
			return true
		}
	}
	return false
}

// apply does one operation at a moment, if its answer fits.
func (l *timeline) apply(o *Operation, rest []*Operation, now *Final, lowest kv.Revision, at int64) bool {
	next := func(value *Final, lowest kv.Revision) bool {
		if value != nil && value != now {
			value.ExpireAt = o.ExpireAt
			if o.Kind == Increment && now != nil {
				value.ExpireAt = now.ExpireAt
			}
		}
		return l.try(rest, value, lowest, at)
	}
	if o.Outcome == Unknown {
		return guess(o, now, lowest, l.revisions, next)
	}
	if o.Kind == Get && o.Found && (now == nil || o.ExpireAt != now.ExpireAt) {
		return false
	}
	return at <= o.Return && explains(o, now, lowest, l.revisions, next)
}

// TestExpiryOutage: what comes of an outage, writes with an expiry that nobody knows of and long reads beside them, is decided, also when
// reads after it find the key gone.
func TestExpiryOutage(t *testing.T) {
	const lost, outage, after = 14, 1000, 5000
	bounds := Bounds{Late: 100, Skew: 50}
	var h History
	for i := range int64(20) {
		h = append(h, op(Put, "early"+strconv.FormatInt(i, 10), 20+2*i, 21+2*i, kv.Revision(1+i)).expireAt(700+300*i))
	}
	h = append(h, op(Put, "before", 100, 101, 30).expireAt(8000))
	for i := range int64(lost) {
		h = append(h, op(Put, "lost"+strconv.FormatInt(i, 10), outage+i*50, outage+i*50+1, 0).ttl(100+200*i).unknown())
		h = append(h, op(Get, "before", outage+i*50, after+i, 30).expireAt(8000), op(Get, "after", outage+i*50, after+50+i, 31).expireAt(9000))
	}
	h = append(h, op(Put, "after", after+15, after+20, 31).expireAt(9000), op(Get, "after", 7100, 7101, 31).expireAt(9000))
	stale := op(Get, "before", 7102, 7103, 30).expireAt(8000)
	end := gone(12_000, 12_001)
	require.Empty(t, Expiry(h, bounds, patience))
	require.Empty(t, Expiry(append(h, end), bounds, patience))
	for _, wrong := range []History{{stale}, {stale, end}} {
		found := Expiry(slices.Concat(h, wrong), bounds, patience)
		require.Len(t, found, 1)
		require.Equal(t, NotLinearizable, found[0].Rule)
	}
}

func BenchmarkExpiry(b *testing.B) {
	for _, kinds := range [][]Kind{{Get, Put}, {Get, Put, CAS, Delete}} {
		b.Run(fmt.Sprint(kinds), func(b *testing.B) {
			var histories []History
			var bounds []Bounds
			for seed := range uint64(20) {
				c := newExpiring(seed, kinds...)
				histories, bounds = append(histories, c.run("k", 10, 200)), append(bounds, c.bounds)
			}
			for b.Loop() {
				for i, h := range histories {
					if found := Expiry(h, bounds[i], patience); len(found) > 0 {
						b.Fatal(found[0])
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(histories)), "µs/history")
		})
	}
}
