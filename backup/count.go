package backup

import (
	"bytes"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/snapshot/pairs"
)

// counter counts the pairs of a part and checks them: keys in their order, within the span and the bounds.
type counter struct {
	span        kv.Span
	last        []byte
	keys, bytes uint64
	visit       func(key []byte, rec kv.Record) error // May be nil.
}

// add takes pairs in.
func (c *counter) add(b []byte) error {
	return pairs.Each(b, func(key []byte, rec kv.Record) error {
		switch {
		case kv.CheckKey("key", key) != nil || kv.CheckValue("value", rec.Value) != nil:
			return damagedf("a key or a value breaks its bound")
		case !c.span.Contains(key):
			return damagedf("the key %s is outside of its part", kv.FormatKey(key))
		case c.last != nil && bytes.Compare(key, c.last) <= 0:
			return damagedf("the key %s is out of order", kv.FormatKey(key))
		}
		c.last = key
		c.keys++
		c.bytes += uint64(len(key) + len(rec.Value))
		if c.visit == nil {
			return nil
		}
		return c.visit(key, rec)
	})
}
