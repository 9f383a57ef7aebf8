//go:build mutant_truncated_past_applied

package node

// mutantTruncatedPastApplied breaks T6 on purpose: the log is truncated without asking whether what replaces it is durable.
const mutantTruncatedPastApplied = true
