package agent

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// openPort opens the virtio-serial port of that name and waits until the host
// has its end open too: before, a read would take that for the end.
func openPort(name string, limit time.Duration) (*os.File, error) {
	deadline := time.Now().Add(limit)
	for ; time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		// The first number is the device's, the second the port's on it.
		for _, port := range []string{"vport0p1", "vport0p2", "vport0p0", "vport1p1", "vport1p0"} {
			got, err := readKernel("/sys/class/virtio-ports/" + port + "/name")
			if err != nil || got != name {
				continue
			}
			fd, err := unix.Open("/dev/"+port, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
			if err != nil {
				continue // its node follows
			}
			if !connected(fd, deadline) {
				unix.Close(fd)
				continue
			}
			return os.NewFile(uintptr(fd), name), nil
		}
	}
	return nil, fmt.Errorf("open the control port: not there after %v", limit)
}

func connected(fd int, deadline time.Time) bool {
	for time.Now().Before(deadline) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(p, 10); err == nil && n == 1 && p[0].Revents&unix.POLLHUP == 0 {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return false
}
