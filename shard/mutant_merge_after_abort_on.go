//go:build mutant_merge_after_abort

package shard

// mutantMergeAfterAbort breaks G1: a merge that was given up is still carried out.
const mutantMergeAfterAbort = true
