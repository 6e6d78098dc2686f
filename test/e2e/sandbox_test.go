package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/keeper"
)

// A box is a sandbox that a test has started and looks at from outside.
type box struct {
	t    *testing.T
	home string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner

	stdout, stderr bytes.Buffer
}

// bootLimit is generous: emulated machines on busy processors.
const bootLimit = 4 * time.Minute

// start runs cutout with args, in a home of its own.
func start(t *testing.T, env []string, args ...string) *box {
	t.Helper()
	home, err := newHome(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(cutout, args...)
	cmd.Env = append(append(os.Environ(), "CUTOUT_HOME="+home), env...)
	return follow(t, home, cmd)
}

// follow starts cmd, which runs a sandbox in home.
func follow(t *testing.T, home string, cmd *exec.Cmd) *box {
	t.Helper()
	b := &box{t: t, home: home, cmd: cmd}
	b.cmd.Stderr = &b.stderr
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	b.in, err = b.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	b.out = bufio.NewScanner(io.TeeReader(out, &b.stdout))
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.cmd.Process.Kill() })
	watchdog := time.AfterFunc(bootLimit, func() { b.cmd.Process.Kill() })
	t.Cleanup(func() { watchdog.Stop() })
	return b
}

// waitLine waits until the guest prints line.
func (b *box) waitLine(line string) {
	b.t.Helper()
	for b.out.Scan() {
		if strings.TrimSpace(b.out.Text()) == line {
			return
		}
	}
	b.cmd.Wait()
	b.t.Fatalf("the guest never printed %q; it printed %q and %q", line, b.stdout.String(), b.stderr.String())
}

// exit waits for the CLI and returns its exit status, -1 for a signal.
func (b *box) exit() int {
	b.t.Helper()
	for b.out.Scan() { // the rest
	}
	err := b.cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	return b.cmd.ProcessState.ExitCode()
}

// client talks to the sandbox's keeper.
func (b *box) client() *keeper.Client {
	b.t.Helper()
	dirs, err := filepath.Glob(filepath.Join(b.home, "run", "*", keeper.SocketName))
	if err != nil || len(dirs) != 1 {
		b.t.Fatalf("control sockets: %v, %v", dirs, err)
	}
	return keeper.Dial(filepath.Dir(dirs[0]))
}

// pids returns the ids of the keeper and the machine.
func (b *box) pids() (keeperPID, machine int) {
	b.t.Helper()
	c := b.client()
	defer c.Close()
	info, err := c.Info(context.Background())
	if err != nil || len(info.PIDs) < 2 {
		b.t.Fatalf("ask the keeper: %+v, %v", info, err)
	}
	return info.PIDs[0], info.PIDs[1]
}

// A process is one at a time: ids are used again.
type process struct {
	pid   int
	start string
}

func (p process) alive() bool {
	fields := stat(p.pid)
	return fields != nil && fields[0] != "Z" && fields[19] == p.start
}

// stat returns the fields of /proc/PID/stat from the state on, nil if there
// is no such process.
func stat(pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return nil
	}
	return fields
}

// descendants returns pid and all processes below it.
func descendants(pid int) []process {
	children := map[int][]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well formed
	for _, dir := range dirs {
		p, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if fields := stat(p); fields != nil {
			parent, _ := strconv.Atoi(fields[1])
			children[parent] = append(children[parent], p)
		}
	}
	var out []process
	for todo := []int{pid}; len(todo) > 0; todo = todo[1:] {
		if fields := stat(todo[0]); fields != nil {
			out = append(out, process{todo[0], fields[19]})
		}
		todo = append(todo, children[todo[0]]...)
	}
	return out
}

// gone checks that none of the processes lives.
func gone(all []process) error {
	for _, p := range all {
		if p.alive() {
			cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
			return fmt.Errorf("process %d lives: %q", p.pid, cmdline)
		}
	}
	return nil
}

// TestSignals: the guest's command gets what the CLI gets; one that does not
// listen is ended with its sandbox.
func TestSignals(t *testing.T) {
	t.Parallel()
	b := start(t, nil, "run", "-m", "256m", "--", "sh", "-c",
		`trap 'echo term' TERM; trap 'echo usr1; exit 3' USR1; trap '' INT; echo up; while :; do sleep 0.1; done`)
	b.waitLine("up")
	for _, s := range []struct {
		sig  syscall.Signal
		line string
	}{{syscall.SIGTERM, "term"}, {syscall.SIGUSR1, "usr1"}} {
		if err := b.cmd.Process.Signal(s.sig); err != nil {
			t.Fatal(err)
		}
		b.waitLine(s.line)
	}
	if code := b.exit(); code != 3 {
		t.Errorf("exit status %d, want the command's 3", code)
	}

	deaf := start(t, nil, "run", "-m", "256m", "--", "sh", "-c", `trap '' INT; echo up; while :; do sleep 0.1; done`)
	deaf.waitLine("up")
	all := descendants(deaf.cmd.Process.Pid)
	for range 3 {
		deaf.cmd.Process.Signal(os.Interrupt)
		time.Sleep(100 * time.Millisecond)
	}
	if code := deaf.exit(); code != 130 {
		t.Errorf("exit status %d, want 130", code)
	}
	eventually(t, 20*time.Second, func() error { return gone(all) })
	if err := checkClean(deaf.home); err != nil {
		t.Error(err)
	}
}
