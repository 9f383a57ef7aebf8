package main

import (
	"context"
	"fmt"
	"os/exec"
	"runtime/debug"
	"strings"
)

// build tells which code runs.
type build struct {
	// commit is empty where neither the binary nor git tells.
	commit, tags string
	// changed tells that the files were not those of the commit.
	changed bool
}

// buildOf reads it from the binary, or, for go run leaves it out there, from git.
func buildOf(ctx context.Context) (b build) {
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.commit = s.Value
		case "vcs.modified":
			b.changed = s.Value == "true"
		case "-tags":
			b.tags = s.Value
		}
	}
	if b.commit == "" {
		b.commit = git(ctx, "rev-parse", "HEAD")
		b.changed = git(ctx, "status", "--porcelain", "--untracked-files=no") != ""
	}
	return b
}

func git(ctx context.Context, args ...string) string {
	out, err := exec.CommandContext(ctx, "git", args...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// commitShown is how many digits of a commit are shown.
const commitShown = 12

func (b build) String() string {
	text := "an unknown commit"
	if b.commit != "" {
		text = b.commit[:min(commitShown, len(b.commit))]
	}
	if b.changed {
		text += "+changes"
	}
	if b.tags != "" {
		text += " tags " + b.tags
	}
	return text
}

// replay is the command that runs a seed again.
func (b build) replay(seed uint64, pebble bool) string {
	command := "go run"
	if b.tags != "" {
		command += " -tags " + b.tags
	}
	command += fmt.Sprintf(" ./sim/cmd/simulate --replay %d", seed)
	if pebble {
		command += " --pebble"
	}
	return command
}
