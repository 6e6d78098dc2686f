package keeper

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Harden forbids core dumps and tracing of this process. It must run before
// a value is read.
func Harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PT_DENY_ATTACH, 0, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("forbid tracing: %w", errno)
	}
	return nil
}

// noNewPrivs has no counterpart on this system.
func noNewPrivs() error { return nil }

// peerUID returns the uid of the process at the other end.
func peerUID(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Xucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	})
	if err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return int(cred.Uid), nil
}

// peerOutside: there are no namespaces.
func peerOutside(*net.UnixConn) bool { return false }
