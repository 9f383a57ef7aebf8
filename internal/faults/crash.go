//go:build kvdtest

package faults

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Points at which a process can be made to end, as kill -9 would end it, when it comes to them.
const (
	// VoteSent: a vote for another replica was handed to the network.
	VoteSent = "vote-sent"
	// LogUnsynced: something is about to be written to the log store; LogSynced: it is durable.
	LogUnsynced, LogSynced = "log-unsynced", "log-synced"
	// BirthSynced: the log of a split's child has begun, ResetSynced: a log has begun anew at a snapshot, RemovalSynced: the log
	// of a removed replica is gone; and that is durable.
	BirthSynced, ResetSynced, RemovalSynced = "birth-synced", "reset-synced", "removal-synced"
	// RemovalUnsynced: a replica was removed, or absorbed by a merge, and that is in the state store, and not durable there.
	RemovalUnsynced = "removal-unsynced"
	// StateSynced: the state store was made durable.
	StateSynced = "state-synced"
	// Installed: a snapshot's data is in the state store, and nobody knows it yet.
	Installed = "installed"
)

// Points lists them.
var Points = []string{VoteSent, LogUnsynced, LogSynced, BirthSynced, ResetSynced, RemovalSynced, RemovalUnsynced, StateSynced, Installed}

// crash is where a process ends by itself, and how often it comes there before.
type crash struct {
	point string
	times int
}

// parseCrash reads a point, and the how manieth time it is, 1 if that is left out.
func parseCrash(b []byte) (c crash, err error) {
	words := strings.Fields(string(b))
	if len(words) > 2 || !slices.Contains(Points, words[0]) {
		return c, fmt.Errorf("crash: one of %s, and a number", strings.Join(Points, ", "))
	}
	c.point, c.times = words[0], 1
	if len(words) == 2 {
		if c.times, err = strconv.Atoi(words[1]); err == nil && c.times < 1 {
			err = fmt.Errorf("crash: a number from 1 on")
		}
	}
	return c, err
}

// crashes has the process end.
type crashes struct {
	asked *told[crash]
	end   func()

	mu   sync.Mutex
	of   *crash // Whose times the number below began with.
	left int
}

// reached tells that the process has come to a point.
func (c *crashes) reached(point string) {
	now := c.asked.now()
	if now.point != point {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of != now {
		c.of, c.left = now, now.times
	}
	if c.left--; c.left == 0 {
		c.end()
	}
}

// Reached tells that the process has come to a point: it may be asked to end there.
func Reached(point string) { process().crashes.reached(point) }

// die ends the process at once; nothing is closed, written or told.
func die() {
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {} // It does not come so far.
}
