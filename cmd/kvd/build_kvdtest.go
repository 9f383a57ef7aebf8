//go:build kvdtest

package main

import (
	"slices"
	"strings"

	"github.com/kvdstore/kvd/internal/faults"
)

// buildSuffix tells a test build by its version.
const buildSuffix = "-kvdtest"

// settingsOf leaves out what is told to a test build alone.
func settingsOf(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(s string) bool { return strings.HasPrefix(s, faults.Env+"=") })
}
