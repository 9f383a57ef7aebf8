package sim

import (
	"bytes"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/kv"
)

// wide is a scan over many shards, which a client reads in chunks: each goes on where the one before ended, whatever the
// shards have become in between. Every chunk shows one moment. That none of the keys is missing that were there, and none
// comes twice, follows from the checks of every key: each of them is read exactly once.
type wide struct {
	span  kv.Span // What is left.
	limit int
	tries int
	ended bool
}

// wideTriesMax is how often a chunk is asked for before a scan is given up.
const wideTriesMax = 10

// drawWide begins a scan from some key of one row to the end of another.
func (c *client) drawWide() *request {
	first := c.chance.IntN(c.Shards)
	last := first + c.chance.IntN(c.Shards-first)
	c.wide = &wide{
		span:  kv.Span{Start: []byte(keyName(first, c.chance.IntN(c.KeysPerShard))), End: []byte(keyName(last+1, 0))},
		limit: c.chance.IntN(4),
	}
	return c.wide.next(c)
}

// next asks for the next chunk.
func (s *wide) next(c *client) *request {
	q := &request{key: s.span.Start, span: s.span, limit: s.limit, cut: true, wide: s}
	for row := range c.Shards {
		for n := range c.KeysPerShard {
			if key := keyName(row, n); s.span.Contains([]byte(key)) {
				c.operation(q, check.Get, key)
			}
		}
	}
	if len(q.ops) == 0 { // No key of ours is left.
		c.wide = nil
		return c.draw()
	}
	return q
}

// read takes an answer in.
func (s *wide) read(chunk kv.Chunk) {
	s.tries = 0
	if chunk.Resume == nil {
		s.ended = true
		return
	}
	s.span.Start = bytes.Clone(chunk.Resume)
}

// goOn decides what comes after a chunk, or an attempt that gave none.
func (c *client) goOn(s *wide, outcome check.Outcome) {
	if outcome != check.Done {
		s.tries++
	}
	if s.ended || s.tries == wideTriesMax {
		if s.ended {
			c.stats.WideScans++
		}
		c.wide = nil
	}
}
