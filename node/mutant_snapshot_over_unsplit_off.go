//go:build !mutant_snapshot_over_unsplit

package node

const mutantSnapshotOverUnsplit = false
