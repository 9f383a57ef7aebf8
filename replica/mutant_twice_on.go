//go:build mutant_proposed_twice

package replica

// mutantProposedTwice breaks the asking on purpose: a proposal is proposed again.
const mutantProposedTwice = true
