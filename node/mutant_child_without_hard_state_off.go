//go:build !mutant_child_without_hard_state

package node

const mutantChildWithoutHardState = false
