//go:build !mutant_merge_before_freeze

package node

const mutantMergeBeforeFreeze = false
