//go:build !mutant_no_tombstone

package node

const mutantNoTombstone = false
