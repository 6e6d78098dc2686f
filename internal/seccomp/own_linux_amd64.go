package seccomp

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// ownArch are older calls in the place of allowed ones.
func ownArch() []uint32 {
	return []uint32{
		unix.SYS_NEWFSTATAT, unix.SYS_GETRLIMIT, unix.SYS_ARCH_PRCTL, unix.SYS_TIME,
		unix.SYS_POLL, unix.SYS_SELECT, unix.SYS_EPOLL_WAIT, unix.SYS_EPOLL_CREATE,
		unix.SYS_EVENTFD, unix.SYS_SIGNALFD, unix.SYS_PIPE, unix.SYS_DUP2,
		unix.SYS_OPEN, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_ACCESS, unix.SYS_READLINK, unix.SYS_GETDENTS,
	}
}
