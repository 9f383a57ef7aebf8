//go:build !mutant_read_state_published_last

package node

// mutantReadStatePublishedLast breaks T4 on purpose, under the build tag mutant_read_state_published_last: messages leave before what they take away from readers is published.
const mutantReadStatePublishedLast = false
