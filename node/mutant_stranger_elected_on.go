//go:build mutant_stranger_elected

package node

// mutantStrangerElected breaks S5 on purpose: the first of a child's replicas stands at once, whoever leads the parent.
const mutantStrangerElected = true
