//go:build mutant_merge_before_freeze

package node

// mutantMergeBeforeFreeze breaks G3 on purpose: a merge is applied where right has not applied its own log up to its end.
const mutantMergeBeforeFreeze = true
