package agent

import (
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

const (
	calmSlack    = "20000000" // 20 ms
	defaultSlack = 50_000     // Linux's own, in nanoseconds
)

// calmRuntime makes the Go runtime a quiet guest of an emulated processor. Its
// monitor thread wants to look around every 20 µs, which took a sixth of the
// time to the first command; with timer slack it does so when a tick wakes
// the processor anyway.
func calmRuntime() {
	debug.SetMemoryLimit(64 << 20) // the guest's memory belongs to its commands
	fd, err := unix.Open("/proc/self/task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	buf := make([]byte, 4<<10)
	n, err := unix.ReadDirent(fd, buf)
	if err != nil {
		return
	}
	_, _, threads := unix.ParseDirent(buf[:n], -1, nil)
	for _, t := range threads {
		if t != "1" {
			writeKernel("/proc/"+t+"/timerslack_ns", calmSlack)
		}
	}
}

// withDefaultSlack runs a fork: a child has the slack of the thread that made
// it, and that may be one of the calm ones.
func withDefaultSlack(fork func() (int, error)) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unix.Prctl(unix.PR_SET_TIMERSLACK, defaultSlack, 0, 0, 0)
	return fork()
}
