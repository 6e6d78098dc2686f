package cage

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ordinaryUID is nobody's that a cage is made for.
const ordinaryUID = 65534

// asHost is set in a run as on another host, to its text.
const asHost = "CUTOUT_TEST_HOST"

// A host is what a test has this machine be like.
type host struct {
	uid   int
	lacks string // features that the kernel does not grant, see refusals
}

func (h host) String() string { return strconv.Itoa(h.uid) + " " + h.lacks }

// user says who is meant, for the names of tests.
func (h host) user() string {
	if h.uid == 0 {
		return "root"
	}
	return "an ordinary user"
}

var root, ordinary = host{uid: 0}, host{uid: ordinaryUID}

// lacking is h without features of the kernel.
func (h host) lacking(features string) host {
	h.lacks = features
	return h
}

// on runs the calling test again as on another host, in a mount namespace of
// its own, and reports whether it is there already. A test whose probes
// nothing confines runs as an ordinary user only: they must never be root's.
func on(t *testing.T, h host) bool {
	t.Helper()
	if os.Getenv(asHost) == h.String() {
		return true
	}
	uid := os.Geteuid()
	if uid != 0 && h.uid == 0 {
		t.Skip("skipped: needs root; the run as an ordinary user is another test")
	}
	dir, err := os.MkdirTemp("", "host") // a short name, for sockets in it
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var pattern []string
	for name := range strings.SplitSeq(t.Name(), "/") {
		pattern = append(pattern, "^"+regexp.QuoteMeta(name)+"$")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run="+strings.Join(pattern, "/"), "-test.v", "-test.timeout=100s")
	cmd.Env = []string{
		asHost + "=" + h.String(), builtProbe + "=" + probe(t),
		"TMPDIR=" + dir, "PATH=" + os.Getenv("PATH"), "CI=" + os.Getenv("CI"),
	}
	cmd.Dir = dir
	if uid == 0 {
		if err := os.Chown(dir, h.uid, h.uid); err != nil {
			t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNS,
			Credential: &syscall.Credential{Uid: uint32(h.uid), Gid: uint32(h.uid)},
		}
	}
	out, err := cmd.CombinedOutput()
	t.Logf("as %s, lacking %q:\n%s", h.user(), h.lacks, out)
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("failed as %s, lacking %q: %v", h.user(), h.lacks, err)
	}
	return false
}

// open lets other users pass through a test's temporary directory.
func open(t *testing.T, dir string) string {
	t.Helper()
	for d := dir; d != os.TempDir() && len(d) > 1; d = filepath.Dir(d) {
		if st, err := os.Stat(d); err == nil && st.Mode().Perm()&0o005 != 0o005 {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// A refusal is a system call that fails, for each process in a host.
type refusal struct {
	call  uint32
	flags uint32 // only with one of these in the first argument; 0 = always
	errno unix.Errno
}

// refusals are how kernels say that they lack a feature.
var refusals = map[string][]refusal{
	"user namespaces": {
		{unix.SYS_CLONE, unix.CLONE_NEWUSER, unix.EPERM},
		{unix.SYS_UNSHARE, unix.CLONE_NEWUSER, unix.EPERM},
		{unix.SYS_CLONE3, 0, unix.ENOSYS},
	},
	// AppArmor's restriction: a user namespace is granted, and nothing in it.
	"mounts":   {{unix.SYS_MOUNT, 0, unix.EACCES}},
	"landlock": {{unix.SYS_LANDLOCK_CREATE_RULESET, 0, unix.ENOSYS}},
	"filters":  {{unix.SYS_SECCOMP, 0, unix.ENOSYS}},
}

// become makes this process one on the host that asHost says.
func become() error {
	_, lacks, _ := strings.Cut(os.Getenv(asHost), " ")
	if lacks == "" {
		return nil
	}
	var p []bpf.Instruction
	for feature := range strings.SplitSeq(lacks, ", ") {
		for _, r := range refusals[feature] {
			fail := bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(r.errno)}
			p = append(p, bpf.LoadAbsolute{Off: 0, Size: 4}) // the call's number
			if r.flags == 0 {
				p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: r.call, SkipFalse: 1}, fail)
				continue
			}
			p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: r.call, SkipFalse: 3},
				bpf.LoadAbsolute{Off: 16, Size: 4}, // the first argument
				bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: r.flags, SkipFalse: 1}, fail)
		}
	}
	raw, err := bpf.Assemble(append(p, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}))
	if err != nil {
		return err
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if os.Geteuid() != 0 { // root needs no such promise, and makes none
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); e != 0 {
		return e
	}
	return nil
}

// A host that lacks a feature does lack it, and nothing else.
func TestHosts(t *testing.T) {
	for _, h := range []host{ordinary.lacking("user namespaces"), ordinary.lacking("mounts"), ordinary.lacking("landlock"), ordinary.lacking("filters")} {
		t.Run(h.lacks, func(t *testing.T) {
			if !on(t, h) {
				return
			}
			var lacks []string
			if err := namespaced(); err != nil {
				lacks = append(lacks, "user namespaces")
			}
			if err := unix.Mount("", "/nonexistent", "", 0, ""); err == unix.EACCES {
				lacks = append(lacks, "mounts")
			}
			if landlockABI() == 0 {
				lacks = append(lacks, "landlock")
			}
			if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, 0); e == unix.ENOSYS {
				lacks = append(lacks, "filters")
			}
			if !slices.Equal(lacks, []string{h.lacks}) {
				t.Errorf("it lacks %q", lacks)
			}
		})
	}
}

// namespaced tries to start a program in a user namespace.
func namespaced() error {
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
	}
	return cmd.Run()
}
