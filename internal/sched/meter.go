package sched

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// errUntold tells that the kernel does not say how long threads wait.
var errUntold = errors.New("the kernel does not tell how long threads wait (schedstat)")

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
		return look{}, err
	}
	now := make(map[int]times, len(list))
	ever := time.Duration(0)
	for _, thread := range list {
		text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/schedstat", thread))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		}
		var t times
		if err == nil {
			t, err = parseTimes(string(text))
		}
		if err != nil {
			return look{}, fmt.Errorf("read how long a thread waited: %w", err)
		}
		now[thread] = t
		ever += t.ran
		l.ran += t.ran - m.threads[thread].ran
		l.waited += t.waited - m.threads[thread].waited
	}
	if ever == 0 {
		return look{}, errUntold
	}
	cpu, err := processors()
	if err != nil {
		return look{}, fmt.Errorf("read what the processors did: %w", err)
	}
	if all := cpu.all - m.cpu.all; all > 0 {
		l.idle = float64(cpu.idle-m.cpu.idle) / float64(all)
	}
	m.threads, m.cpu = now, cpu
	return l, nil
}

// parseTimes reads a schedstat: nanoseconds, in the first two fields (Documentation/scheduler/sched-stats.rst of Linux).
func parseTimes(text string) (t times, err error) {
	_, err = fmt.Sscan(text, (*int64)(&t.ran), (*int64)(&t.waited))
	return t, err
}

// cpuTimes are those of all processors together that this process may use, in ticks.
type cpuTimes struct{ idle, all int64 }

func processors() (cpuTimes, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cpuTimes{}, err
	}
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(os.Getpid(), &may); err != nil {
		return cpuTimes{}, err
	}
	return parseStat(string(text), may.IsSet)
}

// statFields are those of a processor in /proc/stat that add up: user, nice, system, idle, iowait, irq, softirq and steal (proc_stat(5)).
const statFields, idleField, iowaitField = 8, 3, 4

// parseStat sums up over the lines of the processors that count: "cpu0 1 2 3 …".
func parseStat(text string, counts func(cpu int) bool) (t cpuTimes, err error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		cpu, err := strconv.Atoi(strings.TrimPrefix(fields[0], "cpu"))
		if err != nil || !counts(cpu) {
			continue
		}
		if len(fields) <= statFields {
			return cpuTimes{}, fmt.Errorf("the line of a processor has %d fields", len(fields))
		}
		for i, field := range fields[1 : 1+statFields] {
			ticks, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return cpuTimes{}, err
			}
			t.all += ticks
			if i == idleField || i == iowaitField {
				t.idle += ticks
			}
		}
	}
	return t, nil
}
