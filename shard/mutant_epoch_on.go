//go:build mutant_epoch_unchecked

package shard

// mutantEpochUnchecked breaks what apply asks once more: a command is carried out whatever has become of the shard since its
// proposal, a write beyond the span it has left, and a change computed from an older epoch (S1, G1).
const mutantEpochUnchecked = true
