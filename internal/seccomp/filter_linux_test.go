package seccomp

import (
	"encoding/binary"
	"runtime"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// judge runs the filter on a call as the kernel would.
func judge(t *testing.T, f Filter, pid int, arch, number uint32, args ...uint64) uint32 {
	t.Helper()
	vm, err := bpf.NewVM(f.program(pid))
	if err != nil {
		t.Fatal(err)
	}
	// bpf's machine loads big-endian, the kernel from its own memory.
	data := make([]byte, 64)
	put := func(off int, v uint32) { binary.BigEndian.PutUint32(data[off:], v) }
	put(offNumber, number)
	put(offArch, arch)
	for i, a := range args {
		put(offArg0+8*i, uint32(a))
		put(offArg0+8*i+4, uint32(a>>32))
	}
	got, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(got)
}

func TestFilter(t *testing.T) {
	const (
		pid    = 1
		thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD
		allow  = uint32(retAllow)
	)
	f := Filter{Calls: Own(), First: []First{OwnPrctl(), {unix.SYS_SOCKET, []uint32{unix.AF_INET, unix.AF_INET6}}}}
	options := OwnPrctl().Values
	for _, tt := range []struct {
		name   string
		number uint32
		args   []uint64
		want   uint32
	}{
		{"read", unix.SYS_READ, nil, allow},
		{"last of the list", own[len(own)-1], nil, allow},
		{"last of the other list", ownArch()[len(ownArch())-1], nil, allow},
		{"a thread", unix.SYS_CLONE, []uint64{thread}, allow},
		{"a process", unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}, retEPERM},
		{"vfork by clone", unix.SYS_CLONE, []uint64{unix.CLONE_VM | unix.CLONE_VFORK}, retEPERM},
		{"a thread in a new namespace", unix.SYS_CLONE, []uint64{thread | unix.CLONE_NEWNET}, retEPERM},
		{"flags that look like another call", unix.SYS_CLONE, []uint64{unix.SYS_READ}, retEPERM},
		{"clone3", unix.SYS_CLONE3, nil, retENOSYS},
		{"signal to itself", unix.SYS_TGKILL, []uint64{pid, 7}, allow},
		{"signal to another", unix.SYS_TGKILL, []uint64{2, 2}, retEPERM},
		{"signal to all", unix.SYS_KILL, []uint64{^uint64(0)}, retEPERM},
		{"own limits", unix.SYS_PRLIMIT64, []uint64{0, unix.RLIMIT_STACK, 0, 0x7f00}, allow},
		{"another's limits", unix.SYS_PRLIMIT64, []uint64{7, unix.RLIMIT_STACK, 0, 0x7f00}, retEPERM},
		{"new limits", unix.SYS_PRLIMIT64, []uint64{0, unix.RLIMIT_CORE, 0x7f00}, retEPERM},
		{"new limits in high memory", unix.SYS_PRLIMIT64, []uint64{0, unix.RLIMIT_CORE, 1 << 32}, retEPERM},
		{"name of a thread", unix.SYS_PRCTL, []uint64{unix.PR_SET_NAME}, allow},
		{"last prctl", unix.SYS_PRCTL, []uint64{uint64(options[len(options)-1])}, allow},
		{"dumpable", unix.SYS_PRCTL, []uint64{unix.PR_SET_DUMPABLE, 1}, retEPERM},
		{"death signal", unix.SYS_PRCTL, []uint64{unix.PR_SET_PDEATHSIG, 0}, retEPERM},
		{"ptracer", unix.SYS_PRCTL, []uint64{unix.PR_SET_PTRACER, ^uint64(0)}, retEPERM},
		{"a socket of an allowed domain", unix.SYS_SOCKET, []uint64{unix.AF_INET6, 1}, allow},
		{"a socket of another domain", unix.SYS_SOCKET, []uint64{unix.AF_UNIX, 1}, retEPERM},
		{"a domain that looks like another call", unix.SYS_SOCKET, []uint64{unix.SYS_TGKILL, pid}, retEPERM},
		{"a number that does not exist", 0x3fffffff, nil, retEPERM},
	} {
		if got := judge(t, f, pid, auditArch, tt.number, tt.args...); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
	if got := judge(t, f, pid, auditArch^1, unix.SYS_READ); got != retKill {
		t.Errorf("foreign architecture: %#x", got)
	}
	if got := judge(t, f, pid, auditArch, 0x40000000|unix.SYS_READ); got != retKill && runtime.GOARCH == "amd64" {
		t.Errorf("x32: %#x", got)
	}
}

// What DESIGN lists as never allowed is not on the list.
func TestFilterForbids(t *testing.T) {
	for name, n := range map[string]uint32{
		"socket": unix.SYS_SOCKET, "socketpair": unix.SYS_SOCKETPAIR, "connect": unix.SYS_CONNECT, "bind": unix.SYS_BIND,
		"listen": unix.SYS_LISTEN, "accept": unix.SYS_ACCEPT, "accept4": unix.SYS_ACCEPT4,
		"ptrace": unix.SYS_PTRACE, "process_vm_readv": unix.SYS_PROCESS_VM_READV, "process_vm_writev": unix.SYS_PROCESS_VM_WRITEV,
		"pidfd_open": unix.SYS_PIDFD_OPEN, "pidfd_getfd": unix.SYS_PIDFD_GETFD, "pidfd_send_signal": unix.SYS_PIDFD_SEND_SIGNAL,
		"process_madvise": unix.SYS_PROCESS_MADVISE, "kcmp": unix.SYS_KCMP,
		"bpf": unix.SYS_BPF, "perf_event_open": unix.SYS_PERF_EVENT_OPEN, "userfaultfd": unix.SYS_USERFAULTFD,
		"io_uring_setup": unix.SYS_IO_URING_SETUP, "io_uring_enter": unix.SYS_IO_URING_ENTER, "io_uring_register": unix.SYS_IO_URING_REGISTER,
		"io_setup": unix.SYS_IO_SETUP, "keyctl": unix.SYS_KEYCTL, "add_key": unix.SYS_ADD_KEY, "request_key": unix.SYS_REQUEST_KEY,
		"unshare": unix.SYS_UNSHARE, "setns": unix.SYS_SETNS, "mount": unix.SYS_MOUNT, "umount2": unix.SYS_UMOUNT2,
		"move_mount": unix.SYS_MOVE_MOUNT, "open_tree": unix.SYS_OPEN_TREE, "fsopen": unix.SYS_FSOPEN, "pivot_root": unix.SYS_PIVOT_ROOT,
		"chroot": unix.SYS_CHROOT, "execveat": unix.SYS_EXECVEAT, "open_by_handle_at": unix.SYS_OPEN_BY_HANDLE_AT,
		"name_to_handle_at": unix.SYS_NAME_TO_HANDLE_AT, "init_module": unix.SYS_INIT_MODULE, "finit_module": unix.SYS_FINIT_MODULE,
		"kexec_load": unix.SYS_KEXEC_LOAD, "reboot": unix.SYS_REBOOT, "setuid": unix.SYS_SETUID, "setresuid": unix.SYS_SETRESUID,
		"capset": unix.SYS_CAPSET, "personality": unix.SYS_PERSONALITY, "shmget": unix.SYS_SHMGET, "msgget": unix.SYS_MSGGET,
		"semget": unix.SYS_SEMGET, "mq_open": unix.SYS_MQ_OPEN, "kill": unix.SYS_KILL, "tkill": unix.SYS_TKILL,
		"setpriority": unix.SYS_SETPRIORITY, "sched_setaffinity": unix.SYS_SCHED_SETAFFINITY, "setrlimit": unix.SYS_SETRLIMIT,
		"fchmodat": unix.SYS_FCHMODAT, "unlinkat": unix.SYS_UNLINKAT, "renameat2": unix.SYS_RENAMEAT2, "linkat": unix.SYS_LINKAT,
		"symlinkat": unix.SYS_SYMLINKAT, "mknodat": unix.SYS_MKNODAT, "fanotify_init": unix.SYS_FANOTIFY_INIT, "syslog": unix.SYS_SYSLOG,
	} {
		if got := judge(t, Filter{Calls: Own(), First: []First{OwnPrctl()}}, 1, auditArch, n); got != retEPERM {
			t.Errorf("%s: %#x", name, got)
		}
	}
}
