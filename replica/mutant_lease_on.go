//go:build mutant_lease_through_hand_over

package replica

// mutantLeaseThroughHandOver breaks L5: the lease is kept, and renewed, while leadership is handed over.
const mutantLeaseThroughHandOver = true
