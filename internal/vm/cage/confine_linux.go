package cage

import (
	"fmt"
	"os"
	"syscall"

	"github.com/cutoutdev/cutout/internal/seccomp"
	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/privilege"
)

// confine drops everything that the plan does not grant and executes the
// program. It returns only on failure. namespaced says that the process has
// its own namespaces; without says why not.
//
// The order matters: what needs privileges first, then the privileges, then
// the filter.
func (h *helper) confine(namespaced bool, without string) status {
	p := &h.plan
	l := Layers{Landlock: landlockABI(), UID: os.Geteuid(), Without: without}
	if p.omits("landlock") {
		l.Landlock = 0
	}
	if p.UID != 0 {
		l.UID = p.UID
	}
	if namespaced {
		l.UserNS, l.PIDs, l.NetNS, l.Root = inUserNS(), true, true, !p.omits("root")
	} else {
		l.Without = without
	}
	l.Seccomp = seccomp.Supported() && !p.omits("seccomp")
	if len(l.Missing()) > 0 && !p.Weak {
		return status{Layers: l, Step: "check", Error: "the minimum is not met", Lacks: true}
	}

	for _, s := range h.steps(namespaced, l) {
		if err := s.do(); err != nil {
			// A host that grants namespaces may still forbid what is done
			// in them (AppArmor's userns restriction).
			return status{Layers: l, Step: s.name, Error: err.Error(), Retry: namespaced && s.retry}
		}
	}
	h.tell(status{PID: os.Getpid(), Layers: l})
	if p.Probe {
		os.Exit(0)
	}
	err := syscall.Exec(p.Path, p.Args, nil)
	return status{Layers: l, Step: "execute", Error: err.Error()}
}

type step struct {
	name  string
	retry bool
	do    func() error
}

func (h *helper) steps(namespaced bool, l Layers) []step {
	p := &h.plan
	all := []step{
		{"death signal", false, h.alive},
		{"limits", false, limits},
		{"keyring", false, privilege.NewKeyring},
	}
	if l.Root {
		all = append(all, step{"root directory", true, func() error { return newRoot(p.Tree) }})
	}
	if namespaced {
		all = append(all, step{"host name", true, func() error { return unix.Sethostname([]byte("cage")) }})
	}
	// Landlock opens the files, which the program's own uid may not be able
	// to reach by path, and nothing after it needs a file.
	if l.Landlock > 0 {
		all = append(all, step{"landlock", false, func() error { return restrictFiles(p.Tree, l.Landlock) }})
	}
	if p.UID != 0 && !p.omits("uid") {
		all = append(all, step{"user", false, func() error { return h.become(l.UserNS) }})
	}
	all = append(all, step{"death signal", false, h.alive})
	if !p.omits("capabilities") {
		all = append(all, step{"capabilities", false, privilege.Drop})
	}
	all = append(all, step{"privileges", false, func() error { return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }})
	if l.Seccomp {
		all = append(all, step{"system call filter", false, monitorCalls().Thread})
	}
	return all
}

func inUserNS() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	var in, host, n int64
	if err != nil {
		return false
	}
	fmt.Sscan(string(text), &in, &host, &n)
	return n < 1<<32-1
}

func limits() error {
	zero := &syscall.Rlimit{}
	if err := syscall.Setrlimit(unix.RLIMIT_CORE, zero); err != nil {
		return err
	}
	// Descriptors of a machine: disks, and under KVM one per CPU and queue.
	n := uint64(1024)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		return err
	}
	n = min(n, old.Max)
	return syscall.Setrlimit(unix.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n})
}

// become takes the program's own ids. Raw system calls, since those of the
// syscall package act on all threads, which may have ended up in other states.
func (h *helper) become(mapped bool) error {
	id := uintptr(h.plan.UID)
	groups := make([]uint32, len(h.plan.GIDs))
	for i, g := range h.plan.GIDs {
		groups[i] = uint32(g)
		if mapped {
			groups[i] = uint32(2 + i)
		}
	}
	if mapped {
		id = 1
	}
	if err := privilege.SetGroups(groups); err != nil {
		return fmt.Errorf("set groups: %w", err)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, id, id, id); e != 0 {
		return fmt.Errorf("set group: %w", e)
	}
	// Capabilities are kept over the change, to be dropped for good, with
	// the bounding set, in the next step.
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, id, id, id); e != 0 {
		return fmt.Errorf("set user: %w", e)
	}
	return nil
}
