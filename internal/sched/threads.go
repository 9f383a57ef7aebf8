package sched

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The policies, as the kernel numbers them.
const (
	policyOther = unix.SCHED_NORMAL
	policyBatch = unix.SCHED_BATCH
)

// resetOnFork is set in a thread's policy where what it makes does not inherit it.
const resetOnFork = 0x40000000

// threads are the numbers of this process' own.
func threads() (list []int, err error) {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil, fmt.Errorf("list the threads: %w", err)
	}
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			list = append(list, n)
		}
	}
	return list, nil
}

// policyOf gives the policy of a thread, 0 for the caller's own.
func policyOf(thread int) (policy, flags uintptr, err error) {
	p, _, code := unix.Syscall(unix.SYS_SCHED_GETSCHEDULER, uintptr(thread), 0, 0)
	if code != 0 {
		return 0, 0, code
	}
	return p &^ resetOnFork, p & resetOnFork, nil
}

// change gives all threads of one policy another; their nice values and slices stay. What they make inherits it, but for a thread
// that one of the old policy was about to make: that is for the next time.
func change(from, to uintptr) error {
	list, err := threads()
	if err != nil {
		return err
	}
	var problems []error
	for _, thread := range list {
		policy, flags, err := policyOf(thread)
		if err == nil && policy == from {
			err = setPolicy(thread, to|flags)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			problems = append(problems, fmt.Errorf("change the scheduling policy of a thread: %w", err))
		}
	}
	return errors.Join(problems...)
}

// setPolicy is sched_setscheduler(2) with the priority that both policies have: 0.
func setPolicy(thread int, policy uintptr) error {
	var priority int32
	if _, _, code := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, uintptr(thread), policy, uintptr(unsafe.Pointer(&priority))); code != 0 {
		return code
	}
	return nil
}
