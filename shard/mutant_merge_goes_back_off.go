//go:build !mutant_merge_goes_back

package shard

const mutantMergeGoesBack = false
