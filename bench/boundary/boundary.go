//go:build linux

// Package boundary runs cutout boundary for benchmarks.
package boundary

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cutoutdev/cutout/internal/keeper"
)

// A Boundary is a running cutout boundary with a home of its own.
type Boundary struct {
	Env    map[string]string // what the workload is told
	Keeper int               // process id

	dir  string
	cmd  *exec.Cmd
	said bytes.Buffer
}

// Start runs the program cutout and waits until its workload can be plugged
// in. %DIR% in args is a directory that is gone in the end. Close it after
// use.
func Start(cutout string, args ...string) (*Boundary, error) {
	dir, err := os.MkdirTemp("", "cutout-bench-")
	if err != nil {
		return nil, err
	}
	b := &Boundary{Env: map[string]string{}, dir: dir}
	envFile := filepath.Join(dir, "env")
	args = append([]string{"boundary", "-q", "--secret", "BENCH_KEY@api.example.test", "--env-file", envFile}, args...)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "%DIR%", dir)
	}
	b.cmd = exec.Command(cutout, args...)
	b.cmd.Env = append(os.Environ(), "CUTOUT_HOME="+filepath.Join(dir, "home"), "BENCH_KEY=sk-bench-0123456789")
	b.cmd.Stderr = &b.said
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := b.cmd.Start(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		text, err := os.ReadFile(envFile)
		if err == nil {
			for line := range strings.Lines(string(text)) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
				b.Env[name] = value
			}
			break
		}
		if time.Now().After(deadline) {
			b.Close()
			return nil, fmt.Errorf("the boundary does not start: %s", b.said.String())
		}
	}
	if b.Keeper, err = keeperOf(b.cmd.Process.Pid); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// Path returns where name lies in the directory that args call %DIR%.
func (b *Boundary) Path(name string) string { return filepath.Join(b.dir, name) }

// endTimeout is longer than a keeper may take to end.
const endTimeout = 10 * time.Second

// Close ends the boundary and returns what it said, if it failed.
func (b *Boundary) Close() error {
	b.cmd.Process.Signal(os.Interrupt)
	defer time.AfterFunc(endTimeout, func() { b.cmd.Process.Kill() }).Stop()
	err := b.cmd.Wait()
	os.RemoveAll(b.dir)
	if b.cmd.ProcessState.ExitCode() == 128+int(syscall.SIGINT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cutout boundary: %w: %s", err, b.said.String())
	}
	return nil
}

// Ask returns a client of the keeper's control socket. Close it after use.
func (b *Boundary) Ask() (*keeper.Client, error) {
	dirs, err := filepath.Glob(filepath.Join(b.dir, "home", "run", "*"))
	if err == nil && len(dirs) != 1 {
		err = fmt.Errorf("the boundary has %d sandboxes", len(dirs))
	}
	if err != nil {
		return nil, err
	}
	return keeper.Dial(dirs[0]), nil
}

// keeperOf finds the keeper among the children of a process.
func keeperOf(pid int) (int, error) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // by thread
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for child := range strings.FieldsSeq(string(text)) {
			if cmdline, _ := os.ReadFile("/proc/" + child + "/cmdline"); string(bytes.TrimRight(cmdline, "\x00")) == keeper.Arg0 {
				var n int
				fmt.Sscan(child, &n)
				return n, nil
			}
		}
	}
	return 0, fmt.Errorf("process %d has no keeper", pid)
}
