// Package privilege gives up what a process could do, before it becomes a
// program that is not trusted. Everything acts on the calling thread, which
// must be locked to its goroutine and be the one that executes the program.
package privilege

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// CloseOnExec marks every descriptor from first on.
func CloseOnExec(first int) error {
	err := unix.CloseRange(uint(first), math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	// Before Linux 5.11.
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range open {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= first {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// NewKeyring leaves the caller's session keyring. x/sys would pass an empty
// name, which is not the same as none.
func NewKeyring() error {
	_, _, e := unix.RawSyscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	if e != 0 && e != unix.ENOSYS && e != unix.EPERM { // where keyctl is filtered no key can be used either
		return e
	}
	return nil
}

// SetGroups sets the supplementary groups of the calling thread alone.
func SetGroups(groups []uint32) error {
	var p unsafe.Pointer
	if len(groups) > 0 {
		p = unsafe.Pointer(&groups[0])
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(p), 0); e != 0 {
		return e
	}
	return nil
}

// secureBits are, each with its lock: no capabilities for uid 0 on exec
// (NOROOT), none from a change of uid (NO_SETUID_FIXUP), none ambient
// (NO_CAP_AMBIENT_RAISE); and the lock alone of KEEP_CAPS. See
// linux/securebits.h.
const secureBits = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40 | 0x80

// Drop gives up every capability for good. Without the securebits
// an exec as the namespace's root would regain them all. An unprivileged
// process has neither capabilities nor the right to set the bits.
func Drop() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&hdr, &have[0]); err != nil {
		return err
	}
	if have[0].Permitted != 0 || have[1].Permitted != 0 {
		have[0].Effective, have[1].Effective = have[0].Permitted, have[1].Permitted
		if err := unix.Capset(&hdr, &have[0]); err != nil {
			return err
		}
		if err := unix.Prctl(unix.PR_SET_SECUREBITS, secureBits, 0, 0, 0); err != nil {
			return fmt.Errorf("set secure bits: %w", err)
		}
		for c := uintptr(0); ; c++ {
			err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
			if errors.Is(err, unix.EINVAL) {
				break
			}
			if err != nil {
				return fmt.Errorf("drop capability %d: %w", c, err)
			}
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	var none [2]unix.CapUserData
	return unix.Capset(&hdr, &none[0])
}
