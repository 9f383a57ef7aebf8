//go:build kvdtest

package node

import (
	"time"

	"github.com/kvdstore/kvd/internal/faults"
)

func wallOffset() time.Duration { return faults.WallOffset() }
