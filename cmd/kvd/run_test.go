package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCollectorPercent: a heap that is small because the memory is may grow further, unless the limit is near.
func TestCollectorPercent(t *testing.T) {
	for memory, want := range map[int64]int{
		memoryMin: gcPercent, 192 << 20: gcPercent, 512<<20 - 1: gcPercent, 512 << 20: 1200, 1 << 30: 600, 2 << 30: gcPercent, 1 << 50: gcPercent,
	} {
		require.Equal(t, want, collectorPercent(memory), "%d MiB", memory>>20)
	}
}
