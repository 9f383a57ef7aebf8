//go:build !mutant_good_log_reset

package node

const mutantGoodLogReset = false
