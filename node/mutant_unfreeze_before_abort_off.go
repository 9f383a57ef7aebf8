//go:build !mutant_unfreeze_before_abort

package node

const mutantUnfreezeBeforeAbort = false
