//go:build mutant_old_tail_kept

package storage

// mutantOldTailKept breaks D2 on purpose: entries above a snapshot's point stay when the log is reset to it.
const mutantOldTailKept = true
