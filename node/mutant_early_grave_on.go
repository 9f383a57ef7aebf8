//go:build mutant_early_grave

package node

// mutantEarlyGrave breaks T6 on purpose: the log of a removed replica goes before its tombstone is durable.
const mutantEarlyGrave = true
