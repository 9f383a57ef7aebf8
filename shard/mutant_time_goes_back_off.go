//go:build !mutant_time_goes_back

package shard

const mutantTimeGoesBack = false
