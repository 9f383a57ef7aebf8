package node

import (
	"time"

	"golang.org/x/sys/unix"
)

// clockGettime is the system's. A test puts another here, to see what a suspended machine does. It gives the time and
// takes no place for it: what goes to a function in a variable is on the heap, at each read.
var clockGettime = systemClock

func systemClock(clock int32) (unix.Timespec, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(clock, &ts)
	return ts, err
}

// bootTime is the time since the machine's boot, with the time that it slept (CLOCK_BOOTTIME): CLOCK_MONOTONIC, which
// the runtime's own clock is, stands still meanwhile, and a lease measured by it would outlive the promises.
func bootTime() time.Duration {
	ts, err := clockGettime(unix.CLOCK_BOOTTIME)
	if err != nil {
		panic("the clock CLOCK_BOOTTIME cannot be read: " + err.Error())
	}
	return time.Duration(ts.Nano())
}

// wallTime is the other clock, in Unix milliseconds.
func wallTime() int64 { return time.Now().Add(wallOffset()).UnixMilli() }
