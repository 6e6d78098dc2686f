//go:build linux

package boundary

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// tick is the unit of processor times in /proc, USER_HZ, the same everywhere.
const tick = 10 * time.Millisecond

// Processor returns how much processor time a process has used, 0 if it is
// gone.
func Processor(pid int) time.Duration {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	var user, system int64
	fmt.Sscan(fields[11], &user)
	fmt.Sscan(fields[12], &system)
	return time.Duration(user+system) * tick
}

// Memory returns what a process has in memory, and the most that it ever had,
// in bytes.
func Memory(pid int) (now, most int64) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		for name, into := range map[string]*int64{"VmRSS:": &now, "VmHWM:": &most} {
			if rest, found := strings.CutPrefix(line, name); found {
				fmt.Sscan(rest, into)
				*into <<= 10
			}
		}
	}
	return now, most
}

// Sockets counts those that a process has.
func Sockets(pid int) int {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	n := 0
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}
