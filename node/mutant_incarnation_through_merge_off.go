//go:build !mutant_incarnation_through_merge

package node

const mutantIncarnationThroughMerge = false
