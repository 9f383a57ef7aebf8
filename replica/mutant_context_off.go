//go:build !mutant_context_used_again

package replica

// mutantContextUsedAgain breaks L3 on purpose, under the build tag mutant_context_used_again: a ReadIndex that is asked again keeps its
// context, so that an answer to the first question counts from the time of the last.
const mutantContextUsedAgain = false
