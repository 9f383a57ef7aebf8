//go:build !kvdtest

package storage

import "github.com/cockroachdb/pebble/v2/vfs"

// osFiles is the operating system's file system.
func osFiles() vfs.FS { return vfs.Default }

// freeRoom, takeRoom and giveRoom are what a test build (tag kvdtest) corrects the free room of the disk by.
func freeRoom(bytes uint64) uint64 { return bytes }
func takeRoom(int64) error         { return nil }
func giveRoom(int64)               {}
