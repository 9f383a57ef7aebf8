package sim

import (
	"time"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
)

// chaos does one fault after another until the faults are over.
func (w *world) chaos() {
	if w.quiet || w.MeanFault == 0 {
		return
	}
	w.after(between(w.fate, w.MeanFault/4, 2*w.MeanFault), func() {
		if w.quiet {
			return
		}
		w.fault()
		w.chaos()
	})
}

func (w *world) fault() {
	m := w.nodes[w.fate.IntN(len(w.nodes))]
	total := w.Crash + w.Pause + w.Partition + w.Stall + w.Slow + w.DiskFull + w.ClockStep + w.HandOver
	if total == 0 {
		return
	}
	draw := w.fate.IntN(total)
	pick := func(weight int) bool {
		draw -= weight
		return draw < 0
	}
	switch {
	case pick(w.Crash):
		if m.core != nil {
			m.crash()
			m.restartLater()
		}
	case pick(w.Pause):
		m.paused = max(m.paused, w.now+between(w.fate, 50*time.Millisecond, 3*time.Second))
		w.stats.Pauses++
		w.note('p', m.id)
	case pick(w.Partition):
		w.partition()
	case pick(w.Stall):
		m.stalled = max(m.stalled, w.now+between(w.fate, 50*time.Millisecond, 2*time.Second))
		w.note('d', m.id)
	case pick(w.Slow):
		m.slow = max(m.slow, w.now+between(w.fate, 200*time.Millisecond, 4*time.Second))
		w.stats.Slows++
		w.note('l', m.id)
	case pick(w.DiskFull):
		m.fill(between(w.fate, 200*time.Millisecond, 6*time.Second))
	case pick(w.ClockStep):
		m.skew += between(w.fate, -3*time.Second, 3*time.Second)
		w.skewMax = max(w.skewMax, m.skew.Abs())
	case pick(w.HandOver):
		if m.core != nil {
			m.inbox.HandOver = true
			m.wake()
			w.stats.HandOvers++
		}
	}
}

// fill lets the disk be full for a while.
func (m *machine) fill(d time.Duration) {
	m.full = max(m.full, m.now+d)
	m.stats.Fills++
	m.note('f', m.id)
	m.lookAtDisk()
	m.after(d, m.lookAtDisk)
}

// lookAtDisk tells the process whether the disk is full.
func (m *machine) lookAtDisk() {
	if m.core == nil {
		return
	}
	m.inbox.Disk = &node.Disk{Full: m.now < m.full, NeedBytes: 1}
	m.wake()
}

// restartLater starts the process again after a while, often at once.
func (m *machine) restartLater() {
	d := between(m.fate, time.Millisecond, 50*time.Millisecond)
	if !m.quiet && oneIn(m.fate, 2) {
		d = between(m.fate, 50*time.Millisecond, 4*time.Second)
	}
	epoch := m.epoch
	m.after(d, func() {
		if m.epoch == epoch && m.core == nil {
			m.start()
		}
	})
}

// partition cuts some links, in one direction or both, for a while.
func (w *world) partition() {
	w.stats.Partitions++
	side := map[kv.NodeID]bool{}
	for _, m := range w.nodes {
		side[m.id] = oneIn(w.fate, 2)
	}
	oneWay := oneIn(w.fate, 3)
	var cut []link
	for _, a := range w.nodes {
		for _, b := range w.nodes {
			if l := (link{a.id, b.id}); side[l.from] != side[l.to] && (!oneWay || side[l.from]) && !w.blocked[l] {
				w.blocked[l] = true
				cut = append(cut, l)
			}
		}
	}
	w.after(between(w.fate, 100*time.Millisecond, 4*time.Second), func() {
		for _, l := range cut {
			delete(w.blocked, l)
		}
	})
}

// heal ends all faults.
func (w *world) heal() {
	w.quiet = true
	w.blocked = map[link]bool{}
	w.tap, w.onReset, w.hushed = nil, nil, false
	for _, m := range w.nodes {
		m.voteless, m.onVoteless, m.onReadIndex = false, func() {}, nil
		m.paused, m.stalled, m.slow, m.full = min(m.paused, w.now), min(m.stalled, w.now), 0, 0
		if m.core == nil {
			m.start()
		}
		m.lookAtDisk()
	}
}
