package node

// SetWall gives the readers of a node another clock.
func (n *Node) SetWall(f func() int64) { n.reader.Wall = f }
