package sched

import "time"

const (
	// window is how often it is looked at how long threads wait.
	window = 250 * time.Millisecond
	// windows is how many must show the same, one after the other: a program that starts crowds a window or two.
	windows = 4
	// crowdedRatio is how many times as long as they run threads wait, beside programs that compute without a rest. With all
	// processors busy with a node's own work and its callers' it is up to four; with all processors lost to such programs, where
	// SCHED_BATCH is up to ten times as slow as SCHED_OTHER, ten to eighty. With half of them lost both are about as good.
	crowdedRatio = 8
	// waitLeast is what all threads must have waited together in a window for it to count.
	waitLeast = 50 * time.Millisecond
	// room is the share of its processors that rests where nothing computes without a rest.
	room = 0.05
	// holdMin and holdMax bound for how long threads stay of SCHED_OTHER at least: each time twice as long as the time before,
	// unless they were of SCHED_BATCH for calm in between. After holdMax it is tried again also without room: a node and its callers can
	// fill the machine by themselves.
	holdMin = time.Second
	holdMax = 16 * time.Minute
	calm    = 10 * time.Second
)

// look is what was seen in a window.
type look struct {
	// ran and waited are what all threads of this process did together.
	ran, waited time.Duration
	// idle is the share of its processors that rested.
	idle float64
}

func (l look) crowded() bool { return l.waited >= waitLeast && l.waited > crowdedRatio*l.ran }

// governor decides which policy threads have. It begins with SCHED_OTHER, and does not keep it.
type governor struct {
	batch bool
	// since is when the threads became what they are, and hold for how long they stay of SCHED_OTHER.
	since time.Time
	hold  time.Duration
	// against counts the last windows that speak against what they are.
	against int
}

// decide reports whether threads are to be of SCHED_BATCH from now on.
func (g *governor) decide(now time.Time, l look) (batch bool) {
	held := now.Sub(g.since)
	if g.batch && l.crowded() || !g.batch && l.idle >= room {
		g.against++
	} else {
		g.against = 0
	}
	switch {
	case g.batch && g.against >= windows:
		g.fall(now)
	case !g.batch && (g.since.IsZero() || g.against >= windows && held >= g.hold || held >= holdMax):
		g.batch, g.since, g.against = true, now, 0
	}
	return g.batch
}

// fall makes threads SCHED_OTHER.
func (g *governor) fall(now time.Time) {
	if !g.batch {
		return
	}
	if g.hold = min(2*g.hold, holdMax); g.hold == 0 || now.Sub(g.since) >= calm {
		g.hold = holdMin
	}
	g.batch, g.since, g.against = false, now, 0
}
