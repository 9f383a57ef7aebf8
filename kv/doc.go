// Package kv is the vocabulary of kvd: keys and spans, the ids of things, epochs and descriptors, commands
// and their results, errors, and every bound. It imports nothing of ours, so every other package may use it.
//
// The words are those of docs/architecture.md, one word for a thing:
//
//	node         one kvd process
//	shard        one key range and its Raft group
//	replica      a node's copy of a shard
//	incarnation  one life of a replica's data on a node
//	descriptor   {shard, span, epoch, replicas}: what the shard map holds
//	revision     a shard's count of applied write commands
package kv
