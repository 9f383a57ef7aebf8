//go:build !kvdtest

package node

import "time"

// wallOffset is how far a test build (tag kvdtest) lets its wall clock be off.
func wallOffset() time.Duration { return 0 }
