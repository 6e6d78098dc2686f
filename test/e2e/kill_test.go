package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A scene is a sandbox that is about to lose a process.
type scene struct {
	t      *testing.T
	home   string
	cmd    *exec.Cmd
	family *family

	stdout, stderr syncBuffer
	answered       bool // the guest's command was told to end
}

// A syncBuffer is written by a process and read meanwhile.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// runs is the step at which there is a process of that name.
func runs(name string) func(*scene) bool {
	return func(s *scene) bool { return len(s.family.named(name)) > 0 }
}

// has is the step at which the home has a file of that pattern.
func has(pattern string) func(*scene) bool {
	return func(s *scene) bool {
		files, _ := filepath.Glob(filepath.Join(s.home, pattern)) // the pattern is well formed
		return len(files) > 0
	}
}

// copying: somebody talks to the control socket, which the copy does first.
func (s *scene) copying() bool {
	list, _ := os.ReadFile("/proc/net/unix")
	for line := range strings.Lines(string(list)) {
		if strings.Contains(line, s.home+"/run/") && strings.Contains(line, " 03 ") { // connected
			return true
		}
	}
	return false
}

// restoring: the machine waits for a state.
func (s *scene) restoring() bool {
	for _, p := range s.family.named(machineProcess) {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
		if bytes.Contains(cmdline, []byte("\x00-incoming\x00")) {
			return true
		}
	}
	return false
}

// cli is a victim that is known by its id.
const cli = "CLI"

// A killStep is a step of a sandbox's life, with the processes that there are
// then.
type killStep struct {
	name    string
	restore bool // the sandbox begins with a snapshot
	reached func(*scene) bool
	victims []string
	quick   string // the victim in make test
}

var killSteps = []killStep{
	{"the helper reads", false, runs(helperProcess), []string{cli, helperProcess}, helperProcess},
	{"the sandbox has a place", false, has("sandboxes/*/lock"), []string{cli, helperProcess}, ""},
	{"there is a keeper", false, runs(keeperProcess), []string{cli, keeperProcess}, ""},
	{"there is a log", false, has("sandboxes/*/audit.jsonl"), []string{cli, keeperProcess}, ""},
	{"the launcher works", false, runs(launcherProcess), []string{cli, keeperProcess, launcherProcess}, launcherProcess},
	{"the cage is built", false, runs(cageProcess), []string{cli, keeperProcess, cageProcess}, ""},
	{"the machine boots", false, runs(machineProcess), []string{cli, keeperProcess, machineProcess}, keeperProcess},
	{"a snapshot is saved", false, has("snapshots/.tmp-*"), []string{cli, keeperProcess, machineProcess}, keeperProcess},
	{"a snapshot was saved", false, has("snapshots/*.snapshot"), []string{cli, keeperProcess, machineProcess}, ""},
	{"a snapshot is restored", true, (*scene).restoring, []string{cli, keeperProcess, machineProcess}, machineProcess},
	{"the socket is there", true, has("run/*/keeper.sock"), []string{cli, keeperProcess, machineProcess}, ""},
	{"files are copied", true, (*scene).copying, []string{cli, keeperProcess, machineProcess}, cli},
	{"the command runs", true, (*scene).up, []string{cli, keeperProcess, machineProcess, cli + " and " + keeperProcess}, cli + " and " + keeperProcess},
	{"the command ends", true, func(s *scene) bool { return s.up() && s.answer() }, []string{cli, keeperProcess, machineProcess}, ""},
	{"the sandbox ends", true, func(s *scene) bool {
		return s.up() && s.answer() && strings.Contains(s.stdout.String(), "down\n")
	}, []string{cli, keeperProcess, machineProcess}, keeperProcess},
}

func (s *scene) up() bool { return strings.Contains(s.stdout.String(), "up\n") }

// answer tells the guest's command to end, once.
func (s *scene) answer() bool {
	if !s.answered {
		s.answered = true
		s.cmd.Process.Signal(syscall.SIGUSR1)
	}
	return true
}

// TestKill is ATTACKS E4: whichever process is killed at whichever step, no
// process, mount or half-written file of the sandbox is left, the guest never
// outlives the keeper, and the next run works. If nobody is left to clean up,
// the next run does.
func TestKill(t *testing.T) {
	needEmulation(t)
	long := os.Getenv("CUTOUT_TEST_LONG") != ""
	bulk := filepath.Join(t.TempDir(), "bulk")
	if err := os.WriteFile(bulk, make([]byte, 24<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	booted := ownSnapshots(t)
	runIn(t, booted, nil, append(smallest, "--", "true")...) // there is a snapshot now
	f := newFamily(t)
	for _, step := range killSteps {
		for _, victim := range step.victims {
			if !long && victim != step.quick {
				continue
			}
			t.Run(step.name+", "+victim, func(t *testing.T) { killAt(t, f, step, victim, bulk, booted) })
		}
	}
}

// killAt runs a sandbox up to a step, kills the victim, and looks at what is
// left. Booted is a home with a snapshot.
func killAt(t *testing.T, f *family, step killStep, victim, bulk, booted string) {
	for range 5 {
		s := &scene{t: t, home: ownSnapshots(t), family: f}
		if step.restore { // one of its own: it may be given up
			if out, err := exec.Command("cp", "-a", filepath.Join(booted, "snapshots"), s.home).CombinedOutput(); err != nil {
				t.Fatalf("copy the snapshot: %v\n%s", err, out)
			}
		}
		if s.play(step, victim, bulk) {
			return
		}
		t.Logf("the step was over too soon: %s", s.stderr.String())
	}
	t.Fatal("the victim was never there at that step")
}

// play reports whether somebody was killed at the step.
func (s *scene) play(step killStep, victim, bulk string) bool {
	t := s.t
	s.cmd = exec.Command(cutout, append(smallest, "--secret", "API_KEY@api.example.test", "--copy", bulk+":/bulk", "--",
		"sh", "-c", `trap 'echo down; exit 0' USR1; echo up; while :; do sleep 0.02; done`)...)
	s.cmd.Env = append(os.Environ(), "CUTOUT_HOME="+s.home, "API_KEY="+newValue())
	s.cmd.Stdout, s.cmd.Stderr = &s.stdout, &s.stderr
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { s.cmd.Wait(); close(ended) }()
	for begin := time.Now(); ; {
		s.family.look()
		if step.reached(s) && s.kill(victim) {
			break
		}
		select {
		case <-ended:
			return false
		default:
		}
		if s.up() {
			s.answer() // it is too late
		}
		if time.Since(begin) > bootLimit {
			s.cmd.Process.Kill()
			t.Fatal("the sandbox does not start")
		}
	}
	s.await(ended)
	s.aftermath(victim)
	return true
}

// await waits for the CLI. A machine that is lost before it has begun is
// replaced by one that boots, whose command then is told to end.
func (s *scene) await(ended <-chan struct{}) {
	replaced := !s.up()
	for deadline := time.Now().Add(bootLimit); ; {
		select {
		case <-ended:
			return
		case <-time.After(20 * time.Millisecond):
		}
		if replaced && s.up() {
			s.answer()
		}
		if time.Now().After(deadline) {
			s.cmd.Process.Kill()
			s.t.Error("the CLI goes on")
			<-ended
			return
		}
	}
}

// kill reports whether the victim was there.
func (s *scene) kill(victim string) bool {
	var pids []process
	for name := range strings.SplitSeq(victim, " and ") {
		if name == cli {
			pids = append(pids, process{pid: s.cmd.Process.Pid})
		} else {
			pids = append(pids, s.family.named(name)...)
		}
	}
	for _, p := range pids {
		syscall.Kill(p.pid, syscall.SIGKILL)
	}
	return len(pids) > 0
}

// aftermath looks at what is left, and has the next run.
func (s *scene) aftermath(victim string) {
	t := s.t
	code, said := s.cmd.ProcessState.ExitCode(), s.stderr.String()
	t.Logf("exit status %d\n%s", code, said)
	switch {
	case strings.HasPrefix(victim, cli):
	case code == 0 && strings.Contains(s.stdout.String(), "down\n"): // it was replaced, or needed no more
	case code != 125 || !strings.Contains(said, "cutout: "):
		t.Errorf("exit status %d, %q", code, said)
	}
	if strings.Contains(said, "powered off") {
		t.Error("nobody has powered the machine off")
	}
	eventually(t, 20*time.Second, s.family.left)
	if !strings.Contains(victim, cli) { // which would clean up
		if err := checkClean(s.home); err != nil {
			t.Error(err)
		}
	}
	next := exec.Command(cutout, append(smallest, "--", "echo", "works")...)
	next.Env = append(os.Environ(), "CUTOUT_HOME="+s.home)
	out, err := next.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("works\n")) || bytes.Contains(out, []byte("napshot")) {
		t.Errorf("the next run: %v, %s", err, out)
	}
	if err := errors.Join(s.family.left(), checkClean(s.home), checkWhole(s.home)); err != nil {
		t.Error(err)
	}
}

// checkWhole checks that a home has no file that was not finished, and of
// sandboxes that have ended nothing but what is to be looked at.
func checkWhole(home string) error {
	keep := []string{"audit.jsonl", "console.log", "keeper.log", "lock"}
	return filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := d.Name()
		if strings.HasPrefix(name, ".tmp-") {
			return fmt.Errorf("%s was not finished", path)
		}
		if strings.HasPrefix(path, filepath.Join(home, "sandboxes")+"/") && !slices.Contains(keep, name) {
			return fmt.Errorf("%s is left", path)
		}
		return nil
	})
}
