//go:build mutant_epoch_unchecked

package shard

// mutantEpochUnchecked breaks S1 and G1: a shape command is carried out whatever epoch it was computed from.
const mutantEpochUnchecked = true
