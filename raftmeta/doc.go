// Package raftmeta is the metadata of a cluster: its nodes, the shard map, the ids, the settings, and the state machine
// of the Raft group that keeps them, the meta group. Like package shard it starts no goroutine, takes no lock, reads no
// clock and opens no socket.
package raftmeta
