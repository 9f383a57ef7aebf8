//go:build mutant_good_log_reset

package node

// mutantGoodLogReset breaks D2 on purpose: a log that was truncated above the point of its snapshot is reset to that at the start.
const mutantGoodLogReset = true
