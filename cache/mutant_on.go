//go:build mutant_cache_without_stamps

package cache

// mutantWithoutStamps breaks C1 to C3 on purpose: entries are served by key and incarnation alone.
const mutantWithoutStamps = true
