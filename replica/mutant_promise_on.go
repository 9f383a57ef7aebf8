//go:build mutant_promise_left_to_raft

package replica

// mutantPromiseLeftToRaft breaks L1: votes are judged by raft alone.
const mutantPromiseLeftToRaft = true
