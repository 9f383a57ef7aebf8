//go:build !mutant_vote_before_sync

package replica

// mutantVoteBeforeSync breaks T3 on purpose, under the build tag mutant_vote_before_sync: votes are asked for before
// the candidate's own vote is durable.
const mutantVoteBeforeSync = false
