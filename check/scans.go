package check

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/kvdstore/kvd/kv"
)

// Scan is a done read of the keys in [From, To) in order.
type Scan struct {
	Process int
	// From is inclusive; an empty To is after the last key.
	From, To string
	// Limit is how many keys were asked for; 0 is all.
	Limit int
	// KeysOnly: the values were not asked for.
	KeysOnly     bool
	Call, Return int64
	Items        []ScanItem
}

// ScanItem is a key that a scan gave.
type ScanItem struct {
	Key      string      `json:"k"`
	Value    string      `json:"v,omitempty"`
	Revision kv.Revision `json:"r"`
}

// ScanName is the F of events of scans.
const ScanName = "scan"

// ScanAsked is the value of the event that begins a scan; that of its end is the list of its items.
type ScanAsked struct {
	Intent
	From     string `json:"from"`
	To       string `json:"to"`
	Limit    int    `json:"limit,omitempty"`
	KeysOnly bool   `json:"keys_only,omitempty"`
}

// ScansOf gives the scans among calls that were done.
func ScansOf(calls []Call) ([]Scan, error) {
	var scans []Scan
	for i := range calls {
		c := &calls[i]
		if c.Invoke.F != ScanName || c.Type() != OK {
			continue
		}
		var asked ScanAsked
		if err := json.Unmarshal(c.Invoke.Value, &asked); err != nil {
			return nil, fmt.Errorf("event %d: %w", c.Invoke.Index, err)
		}
		s := Scan{c.Invoke.Process, asked.From, asked.To, asked.Limit, asked.KeysOnly, c.Invoke.Time, c.Done.Time, nil}
		if err := json.Unmarshal(c.Done.Value, &s.Items); err != nil {
			return nil, fmt.Errorf("event %d: %w", c.Done.Index, err)
		}
		scans = append(scans, s)
	}
	return scans, nil
}

// Scans looks at scans beside the other operations on their keys: each is in order, without a repetition, within its span
// and its limit; it gives what was written by somebody, and lacks no key that was there from its beginning to its end.
//
// The rest is for Linearizable: what Scanned adds to the history are the reads that the scans are.
func Scans(h History, scans []Scan) []Violation {
	if bad := refuse(h); bad != nil {
		return bad
	}
	all, bare := scanned(h, scans)
	shown := map[string][]*Operation{}
	for i := range bare {
		shown[bare[i].Key] = append(shown[bare[i].Key], &bare[i])
	}
	keys := map[string]*presence{}
	var found []Violation
	for _, k := range all.byKey() {
		keys[k.key] = presenceOf(k, shown[k.key])
		if more := shown[k.key]; more != nil {
			known := slices.DeleteFunc(slices.Concat(k.ops, more), func(o *Operation) bool { return o.revision() == 0 })
			found = append(found, revisionOrder(k.key, known)...)
		}
	}
	sorted := slices.Sorted(maps.Keys(keys))
	for i := range scans {
		s := &scans[i]
		found = append(found, s.form()...)
		found = append(found, s.made(keys)...)
		found = append(found, s.missing(keys, sorted)...)
	}
	return found
}

// String describes the scan.
func (s *Scan) String() string {
	to := "the end"
	if s.To != "" {
		to = kv.FormatKey([]byte(s.To))
	}
	text := fmt.Sprintf("the scan of process %d from %s to %s in [%d, %d], which gave %d keys", s.Process, kv.FormatKey([]byte(s.From)), to, s.Call, s.Return, len(s.Items))
	if s.Limit > 0 {
		text += fmt.Sprintf(" of at most %d", s.Limit)
	}
	return text
}

// form judges a scan by itself.
func (s *Scan) form() []Violation {
	var found []Violation
	if s.Limit > 0 && len(s.Items) > s.Limit {
		found = append(found, violation(ScanOutside, "", s.String()))
	}
	seen := map[string]bool{}
	for i, item := range s.Items {
		switch {
		case item.Key < s.From || s.To != "" && item.Key >= s.To:
			found = append(found, violation(ScanOutside, item.Key, s.String()))
		case seen[item.Key]:
			found = append(found, violation(RepeatedInScan, item.Key, s.String()))
		case i > 0 && item.Key < s.Items[i-1].Key:
			found = append(found, violation(UnorderedScan, item.Key, fmt.Sprintf("it comes after %s in %v", kv.FormatKey([]byte(s.Items[i-1].Key)), s)))
		}
		seen[item.Key] = true
	}
	return found
}

// made judges whether what the scan gives may have been written before its end.
func (s *Scan) made(keys map[string]*presence) []Violation {
	var found []Violation
	for _, item := range s.Items {
		if p := keys[item.Key]; p == nil || !p.wrote(item.Value, s) {
			found = append(found, violation(PhantomWrite, item.Key, fmt.Sprintf("%s is in %v", brief(item.Value), s)))
		}
	}
	return found
}

// covered is the span of which the scan gave everything.
func (s *Scan) covered(key string) bool {
	n := len(s.Items)
	return key >= s.From && (s.To == "" || key < s.To) && (s.Limit == 0 || n < s.Limit || key <= s.Items[n-1].Key)
}

// missing looks for keys that the scan lacks.
func (s *Scan) missing(keys map[string]*presence, sorted []string) []Violation {
	given := map[string]bool{}
	for _, item := range s.Items {
		given[item.Key] = true
	}
	var found []Violation
	first, _ := slices.BinarySearch(sorted, s.From)
	for _, key := range sorted[first:] {
		if s.To != "" && key >= s.To {
			break
		}
		if given[key] || !s.covered(key) {
			continue
		}
		if shows := keys[key].during(s.Call, s.Return); shows != nil {
			found = append(found, violation(MissingInScan, key, "it is not in "+s.String(), shows))
		}
	}
	return found
}

// presence is when a key was there for sure.
type presence struct {
	// shows are the done operations that show that it was there when they returned, or just before; in the order of their
	// returns. removals may have taken it away.
	shows, removals, writes []*Operation
	expiring                bool
}

// presenceOf takes also reads that show that the key was there, and not its value.
func presenceOf(k keyHistory, bare []*Operation) *presence {
	p := &presence{expiring: k.expiring() != nil}
	for _, o := range k.ops {
		happened := o.wrote() || o.mayHaveWritten()
		_, left := o.left()
		switch {
		case happened && (o.Kind == Delete || o.Kind == Clear):
			p.removals = append(p.removals, o)
		case happened:
			p.writes = append(p.writes, o)
		}
		if o.Kind == Get && o.Outcome == Done && o.Found || o.wrote() && left {
			p.shows = append(p.shows, o)
		}
	}
	p.shows = append(p.shows, bare...)
	slices.SortStableFunc(p.shows, func(a, b *Operation) int { return cmp.Compare(a.Return, b.Return) })
	return p
}

// wrote reports whether somebody may have written a value by the end of a scan; with keys only, any value.
func (p *presence) wrote(value string, s *Scan) bool {
	return slices.ContainsFunc(p.writes, func(o *Operation) bool {
		written, _ := o.left()
		unknown := o.Kind == Increment && o.Outcome == Unknown
		return o.Call <= s.Return && (s.KeysOnly || unknown || written == value)
	})
}

// during gives an operation that shows that the key was there all the time from one moment to another; nil if none does.
func (p *presence) during(from, to int64) *Operation {
	if p.expiring {
		return nil
	}
	for _, o := range p.shows {
		if o.Return >= from {
			return nil
		}
		if !slices.ContainsFunc(p.removals, func(r *Operation) bool { return r.Call <= to && !r.before(o) }) {
			return o
		}
	}
	return nil
}

// before reports whether a removal came before what an operation shows, for sure.
func (o *Operation) before(shown *Operation) bool {
	if o.Outcome != Done {
		return false
	}
	return o.Return < shown.Call || o.Revision != 0 && shown.Revision != 0 && o.Revision < shown.Revision
}

// Scanned adds to a history the reads that scans are: of each key that it names, in the part of the span of which the
// scan gave everything. A read of a value that is not known, from keys only, is left out: for Scans to judge.
func Scanned(h History, scans []Scan) History {
	all, _ := scanned(h, scans)
	return all
}

// scanned gives also the reads whose values are not known.
func scanned(h History, scans []Scan) (all, bare History) {
	type version struct {
		key      string
		revision kv.Revision
	}
	values := map[version]string{}
	keys := map[string]bool{}
	process := 0
	for i := range h {
		o := &h[i]
		keys[o.Key] = true
		process = max(process, o.Process+1)
		if o.revision() != 0 && o.tellsValue() && o.seen().present {
			values[version{o.Key, o.Revision}] = o.seen().value
		}
	}
	for i := range scans {
		for _, item := range scans[i].Items {
			if !scans[i].KeysOnly {
				values[version{item.Key, item.Revision}] = item.Value
			}
		}
	}
	sorted := slices.Sorted(maps.Keys(keys))
	all = slices.Clone(h)
	for i := range scans {
		s := &scans[i]
		given := map[string]bool{}
		read := Operation{Process: process + i, Kind: Get, Call: s.Call, Return: s.Return, Outcome: Done}
		for _, item := range s.Items {
			value, known := values[version{item.Key, item.Revision}]
			if given[item.Key] {
				continue
			}
			given[item.Key] = true
			o := read
			o.Key, o.Found, o.Observed, o.Revision = item.Key, true, value, item.Revision
			if s.KeysOnly && !known {
				bare = append(bare, o)
				continue
			}
			if !s.KeysOnly {
				o.Observed = item.Value
			}
			all = append(all, o)
		}
		first, _ := slices.BinarySearch(sorted, s.From)
		for _, key := range sorted[first:] {
			if s.To != "" && key >= s.To {
				break
			}
			if o := read; !given[key] && s.covered(key) {
				o.Key = key
				all = append(all, o)
			}
		}
	}
	return all, bare
}
