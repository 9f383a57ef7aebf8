package sched

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// passesMax bounds how often threads are gone through. One that was made by another before its turn has that one's old policy.
const passesMax = 10

// threads are the numbers of this process' own.
func threads() (list []int, err error) {
	entries, err := os.ReadDir("/proc/self/task")
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			list = append(list, n)
		}
	}
	return list, err
}

// change gives all threads of one policy another. What they make inherits it.
func change(from, to uint32) error {
	for range passesMax {
		list, err := threads()
		if err != nil {
			return fmt.Errorf("list the threads: %w", err)
		}
		changed := 0
		for _, thread := range list {
			was, err := changeOne(thread, from, to)
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("change the scheduling policy: %w", err)
			}
			if was && err == nil {
				changed++
			}
		}
		if changed == 0 {
			return nil
		}
	}
	return nil
}

// changeOne gives a thread another policy, if it has the one; its nice value and its slice stay.
func changeOne(thread int, from, to uint32) (was bool, err error) {
	attr, err := unix.SchedGetAttr(thread, 0)
	if err != nil || attr.Policy != from {
		return false, err
	}
	attr.Policy = to
	return true, unix.SchedSetAttr(thread, attr, 0)
}

// times are how long a thread ran, and how long it was ready and did not.
type times struct{ ran, waited time.Duration }

// meter tells what happened since it was asked before.
type meter struct {
	threads map[int]times
	cpu     cpuTimes
}

// read sums up over all threads. Of one that has ended the rest is missing.
func (m *meter) read() (l look, err error) {
	list, err := threads()
	if err != nil {
		return look{}, fmt.Errorf("list the threads: %w", err)
	}
	now := make(map[int]times, len(list))
	for _, thread := range list {
		t, err := timesOf(thread)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return look{}, fmt.Errorf("read what a thread waited: %w", err)
		}
		now[thread] = t
		l.ran += t.ran - m.threads[thread].ran
		l.waited += t.waited - m.threads[thread].waited
	}
	cpu, err := machine()
	if err != nil {
		return look{}, fmt.Errorf("read what the processors did: %w", err)
	}
	if all := cpu.all - m.cpu.all; all > 0 {
		l.idle = float64(cpu.idle-m.cpu.idle) / float64(all)
	}
	m.threads, m.cpu = now, cpu
	return l, nil
}

// timesOf reads those of a thread: nanoseconds, in the first two fields (Documentation/scheduler/sched-stats.rst of Linux).
func timesOf(thread int) (t times, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/schedstat", thread))
	if err != nil {
		return times{}, err
	}
	_, err = fmt.Sscan(string(b), (*int64)(&t.ran), (*int64)(&t.waited))
	return t, err
}

// cpuTimes are those of all processors of the machine together, in ticks.
type cpuTimes struct{ idle, all int64 }

// machine reads them: the first line of /proc/stat, user, nice, system, idle, iowait, irq, softirq and steal (proc_stat(5)).
func machine() (t cpuTimes, err error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cpuTimes{}, err
	}
	var name string
	var spent [8]int64
	if _, err := fmt.Sscan(string(b), &name, &spent[0], &spent[1], &spent[2], &spent[3], &spent[4], &spent[5], &spent[6], &spent[7]); err != nil {
		return cpuTimes{}, err
	}
	for _, ticks := range spent {
		t.all += ticks
	}
	t.idle = spent[3] + spent[4]
	return t, nil
}
