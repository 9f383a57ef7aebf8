//go:build mutant_snapshot_over_unsplit

package node

// mutantSnapshotOverUnsplit breaks D3 on purpose: a snapshot is taken over another replica that holds keys of it.
const mutantSnapshotOverUnsplit = true
