//go:build !mutant_lease_through_hand_over

package replica

const mutantLeaseThroughHandOver = false
