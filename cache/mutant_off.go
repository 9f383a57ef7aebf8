//go:build !mutant_cache_without_stamps

package cache

// mutantWithoutStamps breaks C1 to C3 on purpose, under the build tag mutant_cache_without_stamps: entries are
// served by key and incarnation alone. Tests and the simulator must notice.
const mutantWithoutStamps = false
