// Package replica is one member of one Raft group, without I/O: it keeps the log that raft reads, and turns
// raft's messages into those that nodes exchange and back.
//
// Nothing here starts a goroutine, takes a lock, reads a clock or opens a socket: the owner is one event loop,
// and what is on disk comes through the interface Store.
package replica
