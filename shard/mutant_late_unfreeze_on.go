//go:build mutant_late_unfreeze

package shard

// mutantLateUnfreeze breaks G2: an Unfreeze ends the freeze of any merge, not only that of its own.
const mutantLateUnfreeze = true
