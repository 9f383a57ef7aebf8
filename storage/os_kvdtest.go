//go:build kvdtest

package storage

import (
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kvdstore/kvd/internal/faults"
)

func osFiles() vfs.FS { return faults.Files() }

func freeRoom(bytes uint64) uint64 { return faults.Free(bytes) }
func takeRoom(bytes int64) error   { return faults.Take(bytes) }
func giveRoom(bytes int64)         { faults.Give(bytes) }
