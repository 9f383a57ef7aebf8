//go:build mutant_applied_apart

package shard

// mutantAppliedApart breaks T2 on purpose: the applied index is stored one step after its effects.
const mutantAppliedApart = true
