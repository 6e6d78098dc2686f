package cage

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Started by root, every cage has a uid of its own from this range.
const (
	firstUID = 64000
	numUIDs  = 1000
)

// leaseUID reserves a uid for as long as the lease is open. The reservation
// is an abstract socket's name, which the kernel frees when the process dies;
// someone who squats on names only makes it pick another uid.
func leaseUID() (int, io.Closer, error) {
	for i := range numUIDs {
		uid := firstUID + (os.Getpid()+i)%numUIDs
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("@cutout-cage-uid-%d", uid), Net: "unix"})
		if err == nil {
			return uid, l, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return 0, nil, fmt.Errorf("reserve a user id: %w", err)
		}
	}
	return 0, nil, errors.New("reserve a user id: all of them are in use")
}

// deviceGroups are the groups without which the program, as a user of its
// own, could not open a device (/dev/kvm is 0660 root:kvm).
func deviceGroups(devices []string) []int {
	var groups []int
	for _, d := range devices {
		st, err := os.Stat(d)
		if err != nil || st.Mode().Perm()&0o060 != 0o060 {
			continue
		}
		if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Gid != 0 {
			groups = append(groups, int(sys.Gid))
		}
	}
	return groups
}
