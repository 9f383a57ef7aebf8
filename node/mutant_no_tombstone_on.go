//go:build mutant_no_tombstone

package node

// mutantNoTombstone breaks M5 on purpose: a removed replica leaves no tombstone.
const mutantNoTombstone = true
