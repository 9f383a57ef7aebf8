//go:build !mutant_late_unfreeze

package shard

const mutantLateUnfreeze = false
