//go:build !mutant_revision_by_index

package shard

// mutantRevisionByIndex breaks R1 on purpose, under the build tag mutant_revision_by_index: a key's revision is the
// index of the Raft entry, which many commands share. TestModel fails, and sim.
const mutantRevisionByIndex = false
