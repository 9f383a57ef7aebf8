//go:build mutant_merge_goes_back

package shard

// mutantMergeGoesBack breaks R1 and R4: a merge keeps the left shard's revision and time.
const mutantMergeGoesBack = true
