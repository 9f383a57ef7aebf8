//go:build !mutant_old_tail_kept

package storage

const mutantOldTailKept = false
