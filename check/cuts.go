package check

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/kvdstore/kvd/kv"
)

// Cuts looks at reads of several keys of one shard that are said to show one moment: a scan, the gets of a transaction.
// The writes of a shard have one order, that of their revisions. So a cut that shows one revision shows everything up to
// it, of the other keys too. With that a transaction is seen as a whole or not at all.
//
// Each cut holds the Gets of one read; others of its operations are passed over. It is lenient with a key that was not
// there where an unknown operation or an expiry may be why.
func Cuts(h History, cuts [][]Operation) []Violation {
	if bad := refuse(h); bad != nil {
		return bad
	}
	keys := map[string]*keyWrites{}
	for _, k := range h.byKey() {
		keys[k.key] = writesOf(k)
	}
	var found []Violation
	for _, cut := range cuts {
		found = append(found, (&cutSearch{keys: keys, cut: cut}).judge()...)
	}
	return found
}

// cutSearch is what one cut shows.
type cutSearch struct {
	keys map[string]*keyWrites
	cut  []Operation
	// visible is a revision that the cut shows, or follows from what it does not show any more; by is why.
	visible kv.Revision
	by      *Operation
}

func (c *cutSearch) see(revision kv.Revision, by *Operation) bool {
	if revision <= c.visible {
		return false
	}
	c.visible, c.by = revision, by
	return true
}

func (c *cutSearch) judge() []Violation {
	for i := range c.cut {
		if o := &c.cut[i]; o.Kind == Get {
			c.see(o.revision(), o)
		}
	}
	// What is gone was removed by a write that is visible too, and with it all before.
	for again := true; again; {
		again = false
		for i := range c.cut {
			o := &c.cut[i]
			w := c.keys[o.Key]
			if o.Kind != Get || o.Outcome != Done || w == nil {
				continue
			}
			last := w.lastUpTo(c.visible)
			if last == nil {
				continue
			}
			if o.Found {
				if o.Revision < last.Revision {
					return c.torn(o, last)
				}
				continue
			}
			if _, left := last.left(); !left || w.expiring || len(w.unknown) > 0 {
				continue
			}
			removed := w.removed(c.visible)
			if removed == nil {
				return c.torn(o, last)
			}
			again = c.see(removed.Revision, removed) || again
		}
	}
	return nil
}

func (c *cutSearch) torn(read, missed *Operation) []Violation {
	return []Violation{violation(TornRead, read.Key,
		fmt.Sprintf("a read that showed revision %d of the shard missed a write at %d", c.visible, missed.Revision), missed, read, c.by)}
}

// lastUpTo is the last acknowledged write up to a revision; nil if there is none, or revisions are not known.
func (w *keyWrites) lastUpTo(revision kv.Revision) *Operation {
	n := w.after(revision)
	if n == 0 || w.done[n-1].Revision == 0 {
		return nil
	}
	return w.done[n-1]
}

// removed is the first acknowledged write after a revision that left nothing.
func (w *keyWrites) removed(revision kv.Revision) *Operation {
	for _, o := range w.done[w.after(revision):] {
		if _, left := o.left(); !left {
			return o
		}
	}
	return nil
}

// after is the place of the first acknowledged write after a revision.
func (w *keyWrites) after(revision kv.Revision) int {
	n, _ := slices.BinarySearchFunc(w.done, revision+1, func(o *Operation, r kv.Revision) int { return cmp.Compare(o.Revision, r) })
	return n
}
