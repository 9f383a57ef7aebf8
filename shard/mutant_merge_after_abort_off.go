//go:build !mutant_merge_after_abort

package shard

const mutantMergeAfterAbort = false
