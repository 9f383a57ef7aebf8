//go:build mutant_revision_by_index

package shard

// mutantRevisionByIndex breaks R1 on purpose: a key's revision is the index of the Raft entry.
const mutantRevisionByIndex = true
