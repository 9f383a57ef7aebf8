//go:build mutant_vote_before_sync

package replica

// mutantVoteBeforeSync breaks T3 on purpose: votes are asked for before the candidate's own vote is durable.
const mutantVoteBeforeSync = true
