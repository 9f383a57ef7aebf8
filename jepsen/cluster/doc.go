// Package cluster runs real kvd processes on one machine and does to them what happens to machines: kill -9, pauses, cut and
// slow links.
//
// As root each node has a network namespace of its own, and all hang on one bridge, at which this program is too:
//
//	n1 10.x.y.1 ──┐
//	n2 10.x.y.2 ──┼── bridge ── 10.x.y.254, the clients
//	n3 10.x.y.3 ──┘
//
// A partition is then a packet filter in the namespaces, and what is lost are real packets, with all that TCP makes of it.
// Otherwise the nodes are ports on loopback, advertise names that only this program knows, and reach each other by its proxy,
// which holds back bytes. The proxy also slows links, in both cases: kvd dials through it because its environment names
// it as gRPC's proxy, one for each node, so it knows who dials, and the program under test is the one that is released. In
// a namespace the proxy listens and dials inside of that namespace: packets still go from node to node.
package cluster
