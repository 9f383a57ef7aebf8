package measure

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is the unit of processor times in /proc on Linux (USER_HZ), whatever the kernel's own clock is.
const ticksPerSecond = 100

// Usage is what a process has taken since it began, by /proc (Linux, proc(5)).
type Usage struct {
	Name string
	// CPU is user and system time.
	CPU time.Duration
	// Resident is the memory it holds now, in bytes.
	Resident uint64
	// Written are the bytes that it had sent to the storage layer; nil where the kernel does not tell us.
	Written *uint64
}

// UsageOf reads the usage of a process. An error says that there is no such process, or no /proc.
func UsageOf(pid int) (Usage, error) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return Usage{}, fmt.Errorf("the figures of process %d: %w", pid, err)
	}
	u, err := parseStat(stat)
	if err != nil {
		return Usage{}, fmt.Errorf("the figures of process %d: %w", pid, err)
	}
	if io, err := os.ReadFile(dir + "io"); err == nil { // Only the owner may read it.
		u.Written = parseWritten(io)
	}
	return u, nil
}

// parseStat reads /proc/PID/stat. The name is in parentheses and may itself hold spaces and parentheses.
func parseStat(text []byte) (Usage, error) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return Usage{}, fmt.Errorf("stat without a name: %q", text)
	}
	const utime, stime, rss = 11, 12, 21 // After the name; fields 14, 15 and 24 of all.
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) <= rss {
		return Usage{}, fmt.Errorf("stat with %d fields only", len(fields))
	}
	var n [3]uint64
	for i, at := range []int{utime, stime, rss} {
		var err error
		if n[i], err = strconv.ParseUint(fields[at], 10, 64); err != nil {
			return Usage{}, err
		}
	}
	return Usage{
		Name: string(text[open+1 : end]), CPU: time.Duration(n[0]+n[1]) * time.Second / ticksPerSecond,
		Resident: n[2] * uint64(os.Getpagesize()),
	}, nil
}

// parseWritten reads write_bytes of /proc/PID/io.
func parseWritten(text []byte) *uint64 {
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "write_bytes:"); ok {
			if n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64); err == nil {
				return &n
			}
		}
	}
	return nil
}
