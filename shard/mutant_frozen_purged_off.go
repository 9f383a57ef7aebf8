//go:build !mutant_frozen_purged

package shard

const mutantFrozenPurged = false
