package keeper

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// dialAsEnv makes a re-executed test binary connect to the socket it names
// and say what came of it.
const dialAsEnv = "CUTOUT_TEST_DIAL"

func TestMain(m *testing.M) {
	if os.Args[0] == Arg0 {
		crash()
	}
	if os.Getenv(settingsEnv) != "" {
		os.Exit(saySettings())
	}
	if path := os.Getenv(dialAsEnv); path != "" {
		os.Exit(dialAndRead(path))
	}
	switch spec := os.Getenv(confinedEnv); spec {
	case "":
	case "wait": // until standard input ends
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	default:
		os.Exit(tryAll(spec))
	}
	os.Exit(m.Run())
}

const (
	served  = 10
	refused = 11
)

// dialAndRead waits for a byte from the server at path.
func dialAndRead(path string) int {
	c, err := net.Dial("unix", path)
	if err != nil {
		return refused
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return refused
	}
	return served
}

// TestPeer is ATTACKS E1: a process of another uid that finds the socket,
// through modes that somebody has opened, is not served; nor is, E11, one of
// the own uid in a network namespace of its own.
func TestPeer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	dir, err := os.MkdirTemp("/tmp", "peer") // below a directory that others can enter
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("x"))
			c.Close()
		}
	}()
	path := filepath.Join(dir, SocketName)
	dial := func(uid uint32, flags uintptr) int {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{dialAsEnv + "=" + path}
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, Cloneflags: flags}
		err := cmd.Run()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return exit.ExitCode()
		}
		t.Fatal(err)
		return 0
	}
	const stranger = 65534
	if got := dial(stranger, 0); got != refused {
		t.Errorf("another uid got past the modes: %d", got)
	}
	for _, p := range []string{dir, path} {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if got := dial(stranger, 0); got != refused {
		t.Errorf("another uid was served: %d", got)
	}
	if got := dial(0, 0); got != served {
		t.Errorf("the own uid was not served: %d", got)
	}
	if got := dial(0, syscall.CLONE_NEWNET); got != refused {
		t.Errorf("a workload of the own uid was served: %d", got)
	}
}
