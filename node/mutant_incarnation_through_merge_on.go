//go:build mutant_incarnation_through_merge

package node

// mutantIncarnationThroughMerge breaks C4 on purpose: left keeps its incarnation through a merge.
const mutantIncarnationThroughMerge = true
