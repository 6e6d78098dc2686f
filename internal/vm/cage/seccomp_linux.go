package cage

import (
	"os"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// allowed are the system calls of a monitor that was given all its channels:
// memory, threads, time, and reading and writing what is open. Derived by
// tracing QEMU 7.2 through boot, traffic, dump and shutdown, and widened by
// what differs between C libraries, QEMU releases and KVM. What is absent is
// the point: no sockets, no other processes, no namespaces, mounts, keys,
// bpf, io_uring, userfaultfd, perf, modules or handles.
var allowed = []uint32{
	// data
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREAD64, unix.SYS_PWRITE64,
	unix.SYS_PREADV, unix.SYS_PWRITEV, unix.SYS_PREADV2, unix.SYS_PWRITEV2,
	unix.SYS_RECVMSG, unix.SYS_SENDMSG, unix.SYS_RECVFROM, unix.SYS_SENDTO, unix.SYS_SHUTDOWN,
	unix.SYS_GETSOCKOPT, unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME,
	unix.SYS_LSEEK, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_SYNC_FILE_RANGE, unix.SYS_FALLOCATE,
	unix.SYS_FTRUNCATE, unix.SYS_FADVISE64, unix.SYS_COPY_FILE_RANGE,
	// descriptors
	unix.SYS_CLOSE, unix.SYS_CLOSE_RANGE, unix.SYS_DUP, unix.SYS_DUP3, unix.SYS_FCNTL, unix.SYS_IOCTL,
	unix.SYS_PIPE2, unix.SYS_EVENTFD2, unix.SYS_SIGNALFD4, unix.SYS_MEMFD_CREATE,
	unix.SYS_TIMERFD_CREATE, unix.SYS_TIMERFD_SETTIME, unix.SYS_TIMERFD_GETTIME,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2,
	unix.SYS_PPOLL, unix.SYS_PSELECT6,
	// files, as far as there are any
	unix.SYS_OPENAT, unix.SYS_FSTAT, unix.SYS_STATX, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2,
	unix.SYS_READLINKAT, unix.SYS_GETDENTS64, unix.SYS_FSTATFS, unix.SYS_STATFS, unix.SYS_GETCWD,
	// memory
	unix.SYS_BRK, unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MREMAP, unix.SYS_MPROTECT, unix.SYS_MADVISE,
	unix.SYS_MSYNC, unix.SYS_MINCORE, unix.SYS_GET_MEMPOLICY, unix.SYS_MLOCK, unix.SYS_MLOCK2, unix.SYS_MUNLOCK, unix.SYS_MEMBARRIER,
	// threads, and signals of its own
	unix.SYS_FUTEX, unix.SYS_SET_ROBUST_LIST, unix.SYS_SET_TID_ADDRESS, unix.SYS_RSEQ,
	unix.SYS_GETTID, unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_RT_SIGTIMEDWAIT,
	unix.SYS_RT_SIGPENDING, unix.SYS_RT_SIGSUSPEND, unix.SYS_SIGALTSTACK, unix.SYS_RESTART_SYSCALL,
	unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_SCHED_GETPARAM, unix.SYS_SCHED_GETSCHEDULER,
	unix.SYS_SCHED_GET_PRIORITY_MAX, unix.SYS_SCHED_GET_PRIORITY_MIN, unix.SYS_GETPRIORITY, unix.SYS_GETCPU,
	// time, and questions about itself
	unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_NANOSLEEP,
	unix.SYS_GETTIMEOFDAY, unix.SYS_TIMES, unix.SYS_GETRUSAGE, unix.SYS_GETITIMER, unix.SYS_SETITIMER,
	unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_GETTIME, unix.SYS_TIMER_DELETE,
	unix.SYS_TIMER_GETOVERRUN, unix.SYS_GETRANDOM, unix.SYS_UNAME, unix.SYS_SYSINFO, unix.SYS_UMASK,
	unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID, unix.SYS_GETRESUID, unix.SYS_GETRESGID,
	unix.SYS_GETGROUPS, unix.SYS_CAPGET,
	// a filter of its own, on top of this one
	unix.SYS_SECCOMP,
	// the program itself; QEMU's -sandbox spawn=deny ends it
	unix.SYS_EXECVE,
}

// allowedPrctl are the options that concern the calling process alone.
var allowedPrctl = []uint32{
	unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_SET_NO_NEW_PRIVS, unix.PR_GET_NO_NEW_PRIVS,
	unix.PR_SET_SECCOMP, unix.PR_GET_SECCOMP, unix.PR_SET_TIMERSLACK, unix.PR_GET_DUMPABLE,
	unix.PR_SET_VMA, unix.PR_MCE_KILL, unix.PR_CAPBSET_READ,
}

// Offsets in struct seccomp_data. Arguments are 64 bits wide, of which the
// kernel too looks only at the low half of those that are judged here.
const (
	offNumber = 0
	offArch   = 4
	offArg0   = 16 // low half, little endian
	offArg2   = 32
)

const (
	retAllow = unix.SECCOMP_RET_ALLOW
	retEPERM = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	retKill  = unix.SECCOMP_RET_KILL_PROCESS
)

// program is the filter for the process whose id is pid.
func program(pid int) []bpf.Instruction {
	ret := func(v uint32) bpf.Instruction { return bpf.RetConstant{Val: v} }
	// only executes the next n instructions if the accumulator is v.
	only := func(v uint32, n uint8) bpf.Instruction {
		return bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipFalse: n}
	}
	number := bpf.LoadAbsolute{Off: offNumber, Size: 4}
	arg0 := bpf.LoadAbsolute{Off: offArg0, Size: 4}

	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		ret(retKill),
		number,
		// x32 calls have the same architecture and other numbers.
		bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: 0x40000000, SkipTrue: 1},
		ret(retKill),
	}
	for _, n := range append(allowed, allowedArch...) {
		p = append(p, only(n, 1), ret(retAllow))
	}
	p = append(p,
		// A thread, not a process, and no namespaces.
		only(unix.SYS_CLONE, 5), arg0,
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: namespaces | unix.CLONE_NEWUSER, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.CLONE_THREAD, SkipFalse: 1},
		ret(retAllow), ret(retEPERM),
		// Its flags lie in memory, where no filter can look. C libraries
		// fall back to clone on this error.
		only(unix.SYS_CLONE3, 1), ret(unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS)),
		// A signal to a thread of its own; where process ids are shared and
		// landlock is older than its scopes, this alone protects others.
		only(unix.SYS_TGKILL, 4), arg0,
		only(uint32(pid), 1), ret(retAllow), ret(retEPERM),
		// Its own limits may be read (pthread_create needs the stack's), by
		// id 0 and without a new limit.
		only(unix.SYS_PRLIMIT64, 8), arg0,
		only(0, 5), bpf.LoadAbsolute{Off: offArg2, Size: 4},
		only(0, 3), bpf.LoadAbsolute{Off: offArg2 + 4, Size: 4},
		only(0, 1), ret(retAllow), ret(retEPERM),
		only(unix.SYS_PRCTL, uint8(2+2*len(allowedPrctl))), arg0,
	)
	for _, o := range allowedPrctl {
		p = append(p, only(o, 1), ret(retAllow))
	}
	return append(p, ret(retEPERM), ret(retEPERM))
}

// filter confines the calling thread, and thus the program that it executes.
func filter() error {
	raw, err := bpf.Assemble(program(os.Getpid()))
	if err != nil {
		return err
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)
}

// filterSupported asks whether the kernel would kill by filter, the newest
// thing that program needs.
func filterSupported() bool {
	action := uint32(retKill)
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return e == 0
}
