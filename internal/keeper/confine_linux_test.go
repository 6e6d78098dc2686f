package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"github.com/cutoutdev/cutout/internal/secret"
	"golang.org/x/sys/unix"
)

// confinedEnv makes a re-executed test binary try what a keeper that somebody
// has taken over would, and tell what came of it.
const confinedEnv = "CUTOUT_TEST_CONFINED"

// surroundings are what a keeper has around it.
type surroundings struct {
	Dirs     Dirs
	File     string // of the same user
	Socket   string
	TCP      string
	PID      int
	Confined bool
}

type attempt struct {
	name string
	do   func() error
}

// work is what a keeper does.
func (s surroundings) work() []attempt {
	state := func(name string) string { return filepath.Join(s.Dirs.State, name) }
	return []attempt{
		{"write its state", func() error { return os.WriteFile(state("a"), []byte("a"), 0o600) }},
		{"replace a file of it", func() error { return os.Rename(state("a"), state("b")) }},
		{"remove a file of it", func() error { return os.Remove(state("b")) }},
		{"spool without a name", func() error { return tryOpen(s.Dirs.State, os.O_RDWR|unix.O_TMPFILE) }},
		{"read the list of resolvers", func() error { return tryOpen(resolvConf, os.O_RDONLY) }},
		{"call a server", func() error { return tryDial("tcp", s.TCP) }},
		{"send datagrams", func() error { return tryDial("udp", s.TCP) }},
		{"serve", func() error { return try(net.Listen("tcp", "127.0.0.1:0")) }},
		{"ask for the host's addresses", func() error { _, err := net.InterfaceAddrs(); return err }},
		{"hold another value", func() error { return try(secret.NewStore(4096)) }},
		{"remove its runtime directory", func() error { return os.RemoveAll(s.Dirs.Runtime) }},
	}
}

// crimes are what a keeper never does after its start.
func (s surroundings) crimes() []attempt {
	return []attempt{
		{"read a file", func() error { return tryOpen(s.File, os.O_RDONLY) }},
		{"write a file", func() error { return tryOpen(s.File, os.O_WRONLY) }},
		{"make a file", func() error { return tryOpen(s.File+"2", os.O_WRONLY|os.O_CREATE) }},
		{"read an environment", func() error { return tryOpen(fmt.Sprintf("/proc/%d/environ", s.PID), os.O_RDONLY) }},
		{"read its program", func() error { return tryOpen("/proc/self/exe", os.O_RDONLY) }},
		{"call a socket", func() error { return tryDial("unix", s.Socket) }},
		{"call an abstract socket", func() error { return tryDial("unix", "@"+s.Socket) }},
		{"start a program", func() error { return exec.Command("/bin/true").Run() }},
		{"signal a process", func() error { return syscall.Kill(s.PID, 0) }},
		{"open a process", func() error { return openProcess(s.PID) }},
		{"read memory", func() error { return readMemory(s.PID) }},
		{"become dumpable", func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }},
		{"raise its limits", func() error { return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) }},
		{"remove a file", func() error { return os.Remove(s.File) }},
	}
}

func tryOpen(path string, flags int) error {
	return try(os.OpenFile(path, flags, 0o600))
}

func tryDial(network, address string) error {
	return try(net.Dial(network, address))
}

func try[C interface{ Close() error }](c C, err error) error {
	if err == nil {
		c.Close()
	}
	return err
}

func openProcess(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// here is at the same address in the test and in the process that it starts.
var here [4]byte

func readMemory(pid int) error {
	var b [4]byte
	local := []unix.Iovec{{Base: &b[0], Len: 4}}
	remote := []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&here)), Len: 4}}
	_, err := unix.ProcessVMReadv(pid, local, remote, 0)
	return err
}

// tryAll prints what came of each attempt, made on a thread that was there
// before the process was confined.
func tryAll(spec string) int {
	var s surroundings
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	confined := make(chan struct{})
	results := make(chan map[string]string)
	go func() {
		runtime.LockOSThread()
		<-confined
		got := make(map[string]string)
		for _, a := range append(s.work(), s.crimes()...) {
			got[a.name] = outcome(a.do())
		}
		results <- got
	}()
	if s.Confined {
		if err := confine(s.Dirs); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
	}
	close(confined)
	json.NewEncoder(os.Stdout).Encode(<-results)
	return 0
}

const (
	done      = "done"
	forbidden = "forbidden"
)

func outcome(err error) string {
	errno, ok := errors.AsType[syscall.Errno](err)
	switch {
	case err == nil:
		return done
	case ok && (errno == unix.EACCES || errno == unix.EPERM):
		return forbidden
	}
	return err.Error()
}

// TestConfine is ATTACKS E3: what the guest sends has taken the keeper over.
// It can do its work and nothing else. The same attempts succeed in a process
// that is not confined, so that each shows something.
func TestConfine(t *testing.T) {
	uids := []int{os.Geteuid()}
	if uids[0] == 0 {
		uids = append(uids, 65534)
	}
	for _, uid := range uids {
		for _, confined := range []bool{false, true} {
			t.Run(fmt.Sprintf("uid %d, confined %t", uid, confined), func(t *testing.T) {
				s, got := attemptAs(t, uid, confined)
				for _, a := range s.work() {
					if got[a.name] != done {
						t.Errorf("it cannot %s: %s", a.name, got[a.name])
					}
				}
				want := done
				if confined {
					want = forbidden
				}
				for _, a := range s.crimes() {
					if got[a.name] != want {
						t.Errorf("%s: %s, want %s", a.name, got[a.name], want)
					}
				}
			})
		}
	}
}

func attemptAs(t *testing.T, uid int, confined bool) (surroundings, map[string]string) {
	t.Helper()
	root, err := os.MkdirTemp("/tmp", "confine") // below a directory that others can enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	s := surroundings{
		Dirs:     Dirs{State: filepath.Join(root, "state"), Runtime: filepath.Join(root, "run", "id")},
		File:     filepath.Join(root, "file"),
		Socket:   filepath.Join(root, "socket"),
		Confined: confined,
	}
	for _, dir := range []string{s.Dirs.State, s.Dirs.Runtime} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.File, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, l := range []struct{ network, address string }{{"unix", s.Socket}, {"unix", "@" + s.Socket}, {"tcp", "127.0.0.1:0"}} {
		l, err := net.Listen(l.network, l.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		s.TCP = l.Addr().String()
	}
	err = filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, uid, uid))
	})
	if err != nil {
		t.Fatal(err)
	}

	// The process that is attempted on is of the same user.
	as := func() *exec.Cmd {
		cmd := exec.Command("/proc/self/exe")
		cmd.Dir = "/"
		if uid != os.Geteuid() {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		}
		return cmd
	}
	victim := as()
	victim.Env = []string{confinedEnv + "=wait"}
	hold, err := victim.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	defer victim.Wait()
	defer hold.Close()
	s.PID = victim.Process.Pid

	spec, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	cmd := as()
	cmd.Env = []string{confinedEnv + "=" + string(spec)}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	return s, got
}
