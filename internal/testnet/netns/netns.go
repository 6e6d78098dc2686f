//go:build linux

// Package netns makes network namespaces, for tests and benchmarks that need
// an interface of their own. It needs root.
package netns

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Namespace is a network namespace with nothing but a loopback, which is
// down. It lives as long as the process PID, which ends with this one.
type Namespace struct {
	PID  int
	hold *exec.Cmd
}

// New makes a namespace. Close it after use.
func New() (*Namespace, error) {
	cmd := exec.Command("sleep", "100000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return &Namespace{PID: cmd.Process.Pid, hold: cmd}, nil
}

// Close ends the namespace, unless others are in it.
func (n *Namespace) Close() error {
	n.hold.Process.Kill()
	n.hold.Wait() // which tells that it was killed
	return nil
}

// In calls f, which must not start goroutines, in the namespace. Sockets that
// it opens stay there. The thread goes back afterwards and lives on, since
// children that it started may end with it.
func (n *Namespace) In(f func() error) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", n.PID))
	if err != nil {
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter a network namespace: %w", err)
	}
	defer func() {
		if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
			panic(back) // nothing else may run on this thread
		}
	}()
	return f()
}

// Command prepares a program in the namespace.
func (n *Namespace) Command(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", fmt.Sprint(n.PID), "-n", "--"}, args...)...)
}

// Run runs a program in the namespace and returns what it printed.
func (n *Namespace) Run(args ...string) (string, error) {
	out, err := n.Command(args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}
