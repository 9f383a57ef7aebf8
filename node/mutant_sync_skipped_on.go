//go:build mutant_sync_skipped

package node

// mutantSyncSkipped breaks T2 on purpose: the log store is not synced.
const mutantSyncSkipped = true
