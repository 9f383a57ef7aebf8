//go:build !mutant_clock_not_read

package node

// mutantClockNotRead breaks L3 on purpose, under the build tag mutant_clock_not_read: a reader believes the published lease without a
// look at the clock.
const mutantClockNotRead = false
