//go:build mutant_unfreeze_before_abort

package node

// mutantUnfreezeBeforeAbort breaks G2 on purpose: the right shard's freeze is ended while the merge may still be carried out.
const mutantUnfreezeBeforeAbort = true
