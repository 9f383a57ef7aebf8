//go:build !kvdtest

package node

import (
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

// asserts is what a test build (tag kvdtest) looks at after turns: what must always hold of the core.
type asserts struct{}

func (asserts) turned(*Core, time.Duration) error { return nil }

// leaving is what it looks at before messages leave.
func leaving(*Core, []*kvdv1.RaftMessage) error { return nil }
