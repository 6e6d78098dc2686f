// Escape runs in a cage in the monitor's place and tries to get out. It
// prints, as JSON, what came of every attempt: "" if it was reached, else the
// error. With a second argument it does not try to run anything before a shell.
package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Targets are what to reach, as the test set it up.
type Targets struct {
	Keeper    int    // process id of who started the cage
	Address   uint64 // of a string in its memory
	File      string // readable by its user
	Dir       string // writable by its user
	Image     string // of the image cache; descriptor 4, for reading
	Overlay   int    // descriptor of the keeper's, of a file without a name
	Unix      string // listening sockets
	Abstract  string
	TCP, UDP  int
	TCP6      int
	Inherited int // descriptors that it was given, from 3 on
}

func main() {
	if os.Args[1] == "sleep" {
		time.Sleep(time.Minute)
		return
	}
	runtime.LockOSThread()
	var t Targets
	if err := json.Unmarshal([]byte(os.Args[1]), &t); err != nil {
		panic(err)
	}
	// First, before attempts leave descriptors of their own.
	results := map[string]string{"descriptor left": text(descriptors(t.Inherited))}
	for name, try := range attempts(t) {
		results[name] = text(try())
	}
	json.NewEncoder(os.Stdout).Encode(results)
	// These do not return if they succeed.
	if len(os.Args) < 3 {
		runMemory()
	}
	unix.Exec("/bin/sh", []string{"sh", "-c", "echo shell"}, nil)
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func attempts(t Targets) map[string]func() error {
	proc := "/proc/" + strconv.Itoa(t.Keeper)
	read := func(path string) func() error {
		return func() error { return open(path, unix.O_RDONLY) }
	}
	call := func(trap, a, b, c uintptr) func() error {
		return func() error { return errno(unix.Syscall(trap, a, b, c)) }
	}
	raw := func(trap, a, b, c uintptr) error { return errno(unix.Syscall(trap, a, b, c)) }
	return map[string]func() error{
		"file":           read(t.File),
		"file by parent": read("../../../../../../../.." + t.File),
		"passwd":         read("/etc/passwd"),
		"root directory": func() error {
			_, err := os.ReadDir("/")
			return err
		},
		"create":         func() error { return open(t.Dir+"/escaped", unix.O_CREAT|unix.O_WRONLY) },
		"create in root": func() error { return open("/escaped", unix.O_CREAT|unix.O_WRONLY) },
		"change itself": func() error {
			return reached(open(os.Args[0], unix.O_WRONLY), unix.ETXTBSY) // what runs cannot be changed, by whoever may
		},
		"home": func() error {
			_, err := os.ReadDir(t.Dir)
			return err
		},
		"image for writing":   func() error { return overwrite(t.Image) },
		"image by descriptor": func() error { return overwrite("/proc/self/fd/4") },
		"mode of descriptor":  func() error { return unix.Fchmod(4, 0o600) },
		"image cache":         func() error { return open(filepath.Dir(t.Image)+"/forged", unix.O_CREAT|unix.O_WRONLY) },
		"another image": func() error {
			err := unix.Rename(t.Image, t.Image+"-other")
			unix.Rename(t.Image+"-other", t.Image) // for the other attempts
			return err
		},
		"disk without a name":  func() error { return open(proc+"/fd/"+strconv.Itoa(t.Overlay), unix.O_RDWR) },
		"disk from the keeper": func() error { return pidfd(t.Keeper, t.Overlay) },
		"any process":          anyProcess,
		"truncate":             func() error { return unix.Truncate(t.File, 0) },
		"unlink":               func() error { return unix.Unlink(t.Dir + "/victim") },
		"chmod":                func() error { return unix.Chmod(t.File, 0o777) },
		"memory file":          read(proc + "/mem"),
		"environ":              read(proc + "/environ"),
		"cmdline":              read(proc + "/cmdline"),
		"descriptors":          read(proc + "/fd/0"),
		"read memory":          func() error { return readMemory(t) },
		"write memory":         func() error { return writeMemory(t) },
		"trace":                func() error { return unix.PtraceSeize(t.Keeper) },
		"pidfd":                func() error { return pidfd(t.Keeper, 0) },
		"signal":               func() error { return unix.Kill(t.Keeper, 0) },
		"signal thread":        func() error { return unix.Tgkill(t.Keeper, t.Keeper, 0) },
		"parent":               func() error { return visible(unix.Getppid()) },
		"unix socket":          func() error { return connect(unix.AF_UNIX, unix.SOCK_STREAM, &unix.SockaddrUnix{Name: t.Unix}) },
		"abstract socket": func() error {
			return connect(unix.AF_UNIX, unix.SOCK_STREAM, &unix.SockaddrUnix{Name: "@" + t.Abstract})
		},
		"tcp": func() error {
			return connect(unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{Port: t.TCP, Addr: [4]byte{127, 0, 0, 1}})
		},
		"tcp6": func() error {
			return connect(unix.AF_INET6, unix.SOCK_STREAM, &unix.SockaddrInet6{Port: t.TCP6, Addr: [16]byte{15: 1}})
		},
		"udp": func() error {
			return connect(unix.AF_INET, unix.SOCK_DGRAM, &unix.SockaddrInet4{Port: t.UDP, Addr: [4]byte{127, 0, 0, 1}})
		},
		"netlink":       func() error { return socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE) },
		"vsock":         func() error { return socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0) },
		"packet":        func() error { return socket(unix.AF_PACKET, unix.SOCK_RAW, 0) },
		"crypto socket": func() error { return socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0) },
		"socket pair":   func() error { _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err },
		"io_uring":      func() error { var p [120]byte; return raw(unix.SYS_IO_URING_SETUP, 1, ptr(&p), 0) },
		"userfaultfd":   call(unix.SYS_USERFAULTFD, 1, 0, 0),
		"bpf":           func() error { var p [120]byte; return reached(raw(unix.SYS_BPF, 0, ptr(&p), 48), unix.EINVAL) },
		"perf":          func() error { return perf() },
		"add key":       func() error { return addKey() },
		"keyring":       call(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, ^uintptr(3), 0), // the user's
		"shared memory": sharedMemory,
		"file handle":   func() error { return handle() },
		"unshare": func() error {
			// Of no use to a process with threads, which only then is told so.
			return reached(raw(unix.SYS_UNSHARE, unix.CLONE_NEWUSER|unix.CLONE_NEWNS, 0, 0), unix.EINVAL)
		},
		"clone namespace": func() error { return fork(unix.CLONE_NEWUSER | uintptr(unix.SIGCHLD)) },
		"fork":            func() error { return fork(uintptr(unix.SIGCHLD)) },
		"clone3":          func() error { var p [88]byte; return reached(raw(unix.SYS_CLONE3, ptr(&p), 8, 0), unix.EINVAL) },
		"mount":           func() error { return unix.Mount("x", "/", "tmpfs", 0, "") },
		"open tree":       func() error { _, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE); return err },
		"chroot":          func() error { return unix.Chroot("/") },
		"setns":           func() error { return setns() },
		"become root":     func() error { return raw(unix.SYS_SETRESUID, 0, 0, 0) },
		"capabilities":    capabilities,
		"core limit": func() error {
			return unix.Prlimit(0, unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1}, nil)
		},
		"environment": func() error {
			if len(os.Environ()) == 0 {
				return errors.New("empty")
			}
			return nil
		},
		"no filter": func() error { return status("Seccomp", "0") },
		"privileges": func() error {
			n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
			if err == nil && n == 1 {
				return errors.New("no_new_privs")
			}
			return err
		},
	}
}

func errno(r, _ uintptr, e unix.Errno) error {
	if e != 0 {
		return e
	}
	return nil
}

// reached is nil for the error that a call gives when it is let through.
func reached(err, through error) error {
	if err == through {
		return nil
	}
	return err
}

func ptr[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) }

func open(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func socket(family, kind, proto int) error {
	fd, err := unix.Socket(family, kind, proto)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func connect(family, kind int, to unix.Sockaddr) error {
	fd, err := unix.Socket(family, kind, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, to)
}

func readMemory(t Targets) error {
	buf := make([]byte, 16)
	local := []unix.Iovec{{Base: &buf[0], Len: 16}}
	_, err := unix.ProcessVMReadv(t.Keeper, local, []unix.RemoteIovec{{Base: uintptr(t.Address), Len: 16}}, 0)
	return err
}

func writeMemory(t Targets) error {
	buf := []byte{0}
	if err := readMemory(t); err != nil {
		return err
	}
	// What is there already.
	local, remote := []unix.Iovec{{Base: &buf[0], Len: 1}}, []unix.RemoteIovec{{Base: uintptr(t.Address), Len: 1}}
	if _, err := unix.ProcessVMReadv(t.Keeper, local, remote, 0); err != nil {
		return err
	}
	_, err := unix.ProcessVMWritev(t.Keeper, local, remote, 0)
	return err
}

// pidfd takes a descriptor out of a process.
func pidfd(pid, n int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	_, err = unix.PidfdGetfd(fd, n, 0)
	return err
}

// overwrite opens a file, which is for reading only, for writing.
func overwrite(path string) error {
	if err := unix.Chmod(path, 0o600); err != nil {
		return err
	}
	return open(path, unix.O_RDWR)
}

// anyProcess reads the environment, the memory or the descriptors of any
// process but this one.
func anyProcess() error {
	all, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range all {
		if pid, err := strconv.Atoi(e.Name()); err != nil || pid == os.Getpid() {
			continue
		}
		for _, name := range []string{"environ", "mem", "maps", "fd/0"} {
			if open("/proc/"+e.Name()+"/"+name, unix.O_RDONLY) == nil {
				return nil
			}
		}
	}
	return errors.New("none can be read")
}

func sharedMemory() error {
	id, _, e := unix.Syscall(unix.SYS_SHMGET, 0, 4096, 0o1600)
	if e != 0 {
		return e
	}
	unix.Syscall(unix.SYS_SHMCTL, id, 0, 0) // IPC_RMID
	return nil
}

func visible(pid int) error {
	if pid == 0 {
		return errors.New("not in this namespace")
	}
	return unix.Kill(pid, 0)
}

func perf() error {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: 112, Config: unix.PERF_COUNT_SW_CPU_CLOCK, Bits: unix.PerfBitExcludeKernel}
	_, err := unix.PerfEventOpen(&attr, 0, -1, -1, 0)
	return err
}

func addKey() error {
	_, err := unix.AddKey("user", "escaped", []byte("x"), unix.KEY_SPEC_PROCESS_KEYRING)
	return err
}

func handle() error {
	_, _, err := unix.NameToHandleAt(unix.AT_FDCWD, "/", 0)
	return err
}

func fork(flags uintptr) error {
	pid, _, e := unix.RawSyscall(unix.SYS_CLONE, flags, 0, 0)
	if e != 0 {
		return e
	}
	if pid == 0 {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	unix.Wait4(int(pid), nil, 0, nil)
	return nil
}

func setns() error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return err
	}
	return unix.Setns(fd, unix.CLONE_NEWNET)
}

func capabilities() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&hdr, &have[0]); err != nil {
		return err
	}
	if have[0].Effective|have[0].Permitted|have[1].Effective|have[1].Permitted == 0 {
		return errors.New("none")
	}
	return nil
}

func runMemory() {
	fd, err := unix.MemfdCreate("escape", 0)
	if err != nil {
		return
	}
	unix.Write(fd, []byte("#!/bin/sh\necho memory\n"))
	empty, _ := unix.BytePtrFromString("")
	argv := []*byte{empty, nil}
	unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(empty)), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&argv[1])), unix.AT_EMPTY_PATH, 0)
}

// descriptors looks for one that is not meant for the program. The runtime's
// own are epoll and event descriptors, which have no type bits.
func descriptors(given int) error {
	for fd := 3 + given; fd < 64; fd++ {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT != 0 {
			return nil
		}
	}
	return errors.New("none")
}

func status(key, want string) error {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if k, v, _ := strings.Cut(line, ":"); k == key && strings.TrimSpace(v) != want {
			return errors.New(k + " " + strings.TrimSpace(v))
		}
	}
	return nil
}
