//go:build mutant_lease_from_the_answer

package replica

// mutantLeaseFromTheAnswer breaks L3 on purpose: the lease runs from when the answer comes.
const mutantLeaseFromTheAnswer = true
