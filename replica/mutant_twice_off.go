//go:build !mutant_proposed_twice

package replica

// mutantProposedTwice breaks the asking on purpose, under the build tag mutant_proposed_twice: a proposal is proposed again.
const mutantProposedTwice = false
