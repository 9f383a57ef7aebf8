//go:build mutant_clock_not_read

package node

// mutantClockNotRead breaks L3 on purpose: a reader believes the published lease without a
// look at the clock.
const mutantClockNotRead = true
