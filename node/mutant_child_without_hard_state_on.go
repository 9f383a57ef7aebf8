//go:build mutant_child_without_hard_state

package node

// mutantChildWithoutHardState breaks S3 on purpose: a child's log begins without a hard state.
const mutantChildWithoutHardState = true
