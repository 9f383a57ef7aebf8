//go:build mutant_epoch_unchecked

package replica

// mutantEpochUnchecked breaks M2 on purpose: a change is applied whatever epoch it was computed from.
const mutantEpochUnchecked = true
