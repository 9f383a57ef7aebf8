//go:build !mutant_early_grave

package node

const mutantEarlyGrave = false
