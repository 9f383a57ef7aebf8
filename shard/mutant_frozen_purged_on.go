//go:build mutant_frozen_purged

package shard

// mutantFrozenPurged breaks G1: purges and the time change a frozen shard.
const mutantFrozenPurged = true
