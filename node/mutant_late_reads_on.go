//go:build mutant_late_reads

package node

// mutantLateReads breaks R5: what should long have expired is shown until the shard's time has come to it.
const mutantLateReads = true
