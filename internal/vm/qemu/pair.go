package qemu

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

// pair makes a connected pair of stream sockets: ours, and a file for QEMU.
func pair() (net.Conn, *os.File, error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("create socket pair: %w", err)
	}
	f := os.NewFile(uintptr(fds[0]), "channel")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		syscall.Close(fds[1])
		return nil, nil, err
	}
	return c, os.NewFile(uintptr(fds[1]), "channel"), nil
}

// readOnly opens f once more, for reading only. A descriptor that could write
// would let a QEMU that was taken over change an image that others share,
// whatever its command line said.
func readOnly(f *os.File) (*os.File, error) {
	ro, err := os.Open(fmt.Sprintf("/dev/fd/%d", f.Fd()))
	if err != nil {
		return nil, fmt.Errorf("open disk for reading: %w", err)
	}
	return ro, nil
}
