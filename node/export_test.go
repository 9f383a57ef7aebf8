package node

import "time"

// SetWall gives the readers of a node another clock.
func (n *Node) SetWall(f func() int64) { n.reader.Wall = f }

// Timing gives the tick and the election timeout, in ticks, that a node's replicas run with.
func (n *Node) Timing() (tick time.Duration, election int) { return n.core.Tick, n.core.ElectionTicks }
