package seccomp

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A Filter is what a process may still ask of the kernel. Besides, it may make
// threads, send signals to them and read its own limits.
type Filter struct {
	Calls []uint32 // numbers of calls with any arguments
	First []First  // calls that depend on their first argument
}

// A First allows a call where its first argument is one of Values.
type First struct {
	Call   uint32
	Values []uint32
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
	retAllow  = unix.SECCOMP_RET_ALLOW
	retEPERM  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	retENOSYS = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	retKill   = unix.SECCOMP_RET_KILL_PROCESS
)

// namespaces are the flags of clone that make one.
const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC |
	unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// program is the filter for the process whose id is pid.
func (f Filter) program(pid int) []bpf.Instruction {
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
	for _, n := range f.Calls {
		p = append(p, only(n, 1), ret(retAllow))
	}
	p = append(p,
		// A thread, not a process, and no namespaces.
		only(unix.SYS_CLONE, 5), arg0,
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: namespaces, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.CLONE_THREAD, SkipFalse: 1},
		ret(retAllow), ret(retEPERM),
		// Its flags lie in memory, where no filter can look. C libraries
		// fall back to clone on this error.
		only(unix.SYS_CLONE3, 1), ret(retENOSYS),
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
	)
	for _, c := range f.First {
		p = append(p, only(c.Call, uint8(2+2*len(c.Values))), arg0)
		for _, v := range c.Values {
			p = append(p, only(v, 1), ret(retAllow))
		}
		p = append(p, ret(retEPERM))
	}
	return append(p, ret(retEPERM))
}

// Thread puts the filter over the calling thread, and thus over the program
// that it executes. It forbids new privileges, as the kernel demands.
func (f Filter) Thread() error { return f.install(0) }

// Process puts the filter over every thread of this process.
func (f Filter) Process() error { return f.install(unix.SECCOMP_FILTER_FLAG_TSYNC) }

func (f Filter) install(flags uintptr) error {
	raw, err := bpf.Assemble(f.program(os.Getpid()))
	if err != nil {
		return fmt.Errorf("assemble filter of system calls: %w", err)
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("filter system calls: %w", errno)
	}
	if r != 0 { // with TSYNC, the thread that could not be brought along
		return fmt.Errorf("filter system calls: thread %d has a filter of its own", r)
	}
	return nil
}

// Supported asks whether the kernel would kill by filter, the newest thing
// that a filter needs.
func Supported() bool {
	action := uint32(retKill)
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return e == 0
}
