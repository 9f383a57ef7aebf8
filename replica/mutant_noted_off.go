//go:build !mutant_lease_from_the_answer

package replica

// mutantLeaseFromTheAnswer breaks L3 on purpose, under the build tag mutant_lease_from_the_answer: the lease runs from when the answer comes.
const mutantLeaseFromTheAnswer = false
