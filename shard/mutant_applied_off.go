//go:build !mutant_applied_apart

package shard

// mutantAppliedApart breaks T2 on purpose, under the build tag mutant_applied_apart: the applied index is stored one
// step after its effects, so that a crash applies entries twice. TestReplayFromAnyPrefix fails, and sim.
const mutantAppliedApart = false
