//go:build !mutant_epoch_unchecked

package shard

const mutantEpochUnchecked = false
