package keeper

import (
	"errors"
	"fmt"
	"math"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Harden makes this process unreadable for others of its uid: no dumps, no
// tracing, /proc entries that belong to root. What its caller left open does
// not go on to its children. It must run before a value is read.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make process undumpable: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	// Fails before Linux 5.11; the cage closes them for the machine anyway.
	unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	return nil
}

// noNewPrivs keeps this process and its children from gaining privileges
// through set-uid programs. The promise is a thread's, and any of them may
// start a child.
func noNewPrivs() error {
	_, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	if e == unix.ENOTSUP { // a build with cgo, whose other threads get it with their filter
		e, _ = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).(unix.Errno)
	}
	if e != 0 {
		return fmt.Errorf("forbid new privileges: %w", e)
	}
	return nil
}

// peerUID returns the uid of the process at the other end.
func peerUID(conn *net.UnixConn) (int, error) {
	cred, err := peer(conn)
	if err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}

// peerOutside reports whether the process at the other end made its socket in
// another network namespace than this process is in: a workload, which may
// have our uid. Kernels before 5.14 do not tell.
func peerOutside(conn *net.UnixConn) bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	own, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if errors.Is(err, unix.ENOPROTOOPT) {
		return false
	}
	var theirs uint64
	raw, rerr := conn.SyscallConn()
	if err != nil || rerr != nil {
		return true
	}
	// A socket that was accepted is in the namespace of who connected.
	rerr = raw.Control(func(fd uintptr) {
		theirs, err = unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	})
	return err != nil || rerr != nil || theirs != own
}

func peer(conn *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if cerr != nil {
		return nil, cerr
	}
	return cred, err
}
