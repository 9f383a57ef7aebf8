//go:build !mutant_epoch_unchecked

package replica

const mutantEpochUnchecked = false
