//go:build mutant_time_goes_back

package shard

// mutantTimeGoesBack breaks R4: the shard's time is that of its last proposer.
const mutantTimeGoesBack = true
