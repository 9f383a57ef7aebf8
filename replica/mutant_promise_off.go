//go:build !mutant_promise_left_to_raft

package replica

const mutantPromiseLeftToRaft = false
