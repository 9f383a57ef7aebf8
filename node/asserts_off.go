//go:build !kvdtest

package node

import "time"

// asserts is what a test build (tag kvdtest) looks at after turns: what must always hold of the core.
type asserts struct{}

func (asserts) turned(*Core, time.Duration) error { return nil }
