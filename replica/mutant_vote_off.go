//go:build !mutant_vote_before_sync

package replica

// mutantVoteBeforeSync breaks T3 on purpose, under the build tag mutant_vote_before_sync: a vote is given before
// it is durable.
const mutantVoteBeforeSync = false
