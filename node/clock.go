package node

import (
	"time"

	"golang.org/x/sys/unix"
)

// clockGettime is the system's. A test puts another here, to see what a suspended machine does.
var clockGettime = unix.ClockGettime

// bootTime is the time since the machine's boot, with the time that it slept (CLOCK_BOOTTIME): CLOCK_MONOTONIC, which
// the runtime's own clock is, stands still meanwhile, and a lease measured by it would outlive the promises.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := clockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("the clock CLOCK_BOOTTIME cannot be read: " + err.Error())
	}
	return time.Duration(ts.Nano())
}

// wallTime is the other clock, in Unix milliseconds.
func wallTime() int64 { return time.Now().UnixMilli() }
