//go:build kvdtest

package node

import "time"

// assertEvery is the time between two looks of a test build at what must always hold.
const assertEvery = 50 * time.Millisecond

// asserts looks at the core after turns.
type asserts struct{ last time.Duration }

func (a *asserts) turned(c *Core, now time.Duration) error {
	if now-a.last < assertEvery {
		return nil
	}
	a.last = now
	return c.Check()
}
