//go:build !mutant_lease_while_shaping

package replica

const mutantLeaseWhileShaping = false
