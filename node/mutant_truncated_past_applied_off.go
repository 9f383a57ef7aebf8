//go:build !mutant_truncated_past_applied

package node

// mutantTruncatedPastApplied breaks T6 on purpose, under the build tag mutant_truncated_past_applied: the log is truncated without asking whether what replaces it is durable.
const mutantTruncatedPastApplied = false
