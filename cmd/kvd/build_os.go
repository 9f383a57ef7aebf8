//go:build !kvdtest

package main

// buildSuffix tells a test build (tag kvdtest) by its version.
const buildSuffix = ""

// settingsOf leaves out what is told to a test build alone.
func settingsOf(environ []string) []string { return environ }
