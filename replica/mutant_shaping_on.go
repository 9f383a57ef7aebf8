//go:build mutant_lease_while_shaping

package replica

// mutantLeaseWhileShaping breaks L6 on purpose: the lease is renewed while a split is on its way.
const mutantLeaseWhileShaping = true
