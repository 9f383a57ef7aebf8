//go:build !mutant_late_reads

package node

const mutantLateReads = false
