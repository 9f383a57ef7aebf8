//go:build mutant_late_freeze

package shard

// mutantLateFreeze breaks G2: an Unfreeze that comes before its Freeze does not keep it from coming.
const mutantLateFreeze = true
