//go:build mutant_vote_before_sync

package replica

// mutantVoteBeforeSync breaks T3 on purpose: a vote is given before it is durable.
const mutantVoteBeforeSync = true
