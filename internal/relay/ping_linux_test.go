package relay

import (
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// pingNamespace returns a function that opens ping sockets to the loopback of
// a new network namespace.
func pingNamespace(t *testing.T) func() (Socket, error) {
	var err error
	thread := on()
	thread(func() {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		if err = os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0); err != nil {
			return
		}
		err = raiseLoopback()
	})
	if err != nil {
		t.Skipf("make a network namespace: %v", err)
	}
	return func() (s Socket, err error) {
		thread(func() { s, err = dialEcho(netip.MustParseAddr("127.0.0.1")) })
		return s, err
	}
}

func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}
