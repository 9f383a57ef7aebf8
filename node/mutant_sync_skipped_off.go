//go:build !mutant_sync_skipped

package node

// mutantSyncSkipped breaks T2 on purpose, under the build tag mutant_sync_skipped: the log store is not synced.
const mutantSyncSkipped = false
