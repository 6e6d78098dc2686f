//go:build linux

package boundary

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// A running is a boundary that goes on.
type running struct {
	p      *place
	cmd    *exec.Cmd
	lines  chan string
	stderr bytes.Buffer
}

// start starts cutout boundary with the secret and the upstreams, and ends it
// with the test.
func (p *place) start(args ...string) *running {
	p.t.Helper()
	args = append(append([]string{"boundary", "--secret", secretFlag}, p.upstreams()...), args...)
	r := &running{p: p, cmd: p.command(args...), lines: make(chan string, 100)}
	r.cmd.Stderr = &r.stderr
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { r.cmd.Process.Kill(); r.cmd.Wait() })
	go func() {
		defer close(r.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			r.lines <- s.Text()
		}
	}()
	return r
}

func (r *running) waitLine(want string) {
	r.p.t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		select {
		case line, ok := <-r.lines:
			if !ok {
				r.cmd.Wait()
				r.p.t.Fatalf("it ended: %s", r.stderr.String())
			}
			if line == want {
				return
			}
		case <-timeout:
			r.p.t.Fatalf("%q did not come: %s", want, r.stderr.String())
		}
	}
}

// processes lists what it has started, itself among them, as directories of
// /proc.
func (r *running) processes(t *testing.T) []string {
	t.Helper()
	parent := map[string]string{}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		text, _ := os.ReadFile(dir + "/status")
		for line := range strings.Lines(string(text)) {
			if pid, ok := strings.CutPrefix(line, "PPid:"); ok {
				parent[dir] = "/proc/" + strings.TrimSpace(pid)
			}
		}
	}
	own := fmt.Sprintf("/proc/%d", r.cmd.Process.Pid)
	var out []string
	for dir := range parent {
		for at := dir; at != ""; at = parent[at] {
			if at == own {
				out = append(out, dir)
				break
			}
		}
	}
	return out
}

// gone waits until none of dirs is a process any more.
func gone(t *testing.T, dirs []string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		var left []string
		for _, dir := range dirs {
			text, err := os.ReadFile(dir + "/status")
			if err == nil && !strings.Contains(string(text), "State:\tZ") {
				left = append(left, string(text[:min(40, len(text))]))
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left running: %q", left)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestEnds: however a boundary ends, nothing of it goes on, and nothing is
// left in the runtime directory.
func TestEnds(t *testing.T) {
	everyone(t, func(t *testing.T, p *place) {
		for name, c := range map[string]struct {
			end  func(r *running)
			code int
		}{
			"^C":                {func(r *running) { r.cmd.Process.Signal(os.Interrupt) }, 130},
			"SIGTERM":           {func(r *running) { r.cmd.Process.Signal(syscall.SIGTERM) }, 143},
			"kill -9":           {func(r *running) { r.cmd.Process.Kill() }, -1},
			"kill -9 of keeper": {func(r *running) { kill(r, "cutout-keeper") }, 125},
			"kill -9 of init":   {func(r *running) { kill(r, "cutout-init") }, 125},
		} {
			t.Run(name, func(t *testing.T) {
				r := p.start("--", "sh", "-c", "(setsid sleep 1000 &) ; echo ready; exec sleep 1000")
				r.waitLine("ready")
				all := r.processes(t)
				c.end(r)
				r.cmd.Wait()
				if code := r.cmd.ProcessState.ExitCode(); code != c.code {
					t.Errorf("exit status %d: %s", code, r.stderr.String())
				}
				gone(t, all)
				if left, _ := filepath.Glob(p.home + "/run/*"); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
			})
		}
	})
}

func kill(r *running, name string) {
	for _, dir := range r.processes(r.p.t) {
		if text, _ := os.ReadFile(dir + "/cmdline"); strings.HasPrefix(string(text), name) {
			var pid int
			fmt.Sscan(filepath.Base(dir), &pid)
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// TestExitStatus is docker's.
func TestExitStatus(t *testing.T) {
	p := newPlace(t, os.Geteuid())
	for want, args := range map[int][]string{
		0:   {"--", "true"},
		3:   {"--", "sh", "-c", "exit 3"},
		137: {"--", "sh", "-c", "kill -9 $$"},
		127: {"--", "no-such-command"},
		126: {"--", "/etc/passwd"},
		124: {"--timeout", "300ms", "--", "sleep", "60"},
		125: {"-w", "/does/not/exist", "--", "true"},
	} {
		if _, said, code := p.run(args...); code != want {
			t.Errorf("%q: exit status %d, want %d: %s", args, code, want, said)
		}
	}
}

// TestTerminal: on a terminal the command gets one of its own, of the same
// size, and the caller's is as it was in the end.
func TestTerminal(t *testing.T) {
	p := newPlace(t, os.Geteuid())
	ours, theirs, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	if err := pty.Setsize(ours, &pty.Winsize{Rows: 33, Cols: 77}); err != nil {
		t.Fatal(err)
	}
	before, err := unix.IoctlGetTermios(int(theirs.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	cmd := p.command("boundary", "-q", "--", "sh", "-c", "tty; stty size; read line; echo got $line")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ours.WriteString("typed\n")
	err = cmd.Wait()
	after, aerr := unix.IoctlGetTermios(int(theirs.Fd()), unix.TCGETS)
	theirs.Close()
	out, _ := io.ReadAll(ours) // to the EIO of a terminal that nobody has open
	for _, want := range []string{"/dev/pts/0", "33 77", "got typed"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q was not printed: %v, %q", want, err, out)
		}
	}
	if aerr != nil || *after != *before {
		t.Errorf("the terminal was left in another mode: %v", aerr)
	}
}
