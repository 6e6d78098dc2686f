//go:build linux

package boundary

import (
	"bytes"
	"fmt"
	"os"
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
