package qemu_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/vm"
	"github.com/cutoutdev/cutout/internal/vm/qemu"
	"github.com/cutoutdev/cutout/internal/vm/vmtest"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	qemu.Main()
	code := m.Run()
	vmtest.Cleanup()
	os.Exit(code)
}

// spec is a machine with the tests' own guest.
func spec(t testing.TB) vm.Spec {
	t.Helper()
	vmtest.QEMU(t)
	s := vm.Spec{MemoryMiB: 256, Notice: func(s string) { t.Log("notice:", s) }}
	if given := strings.Fields(os.Getenv(files)); len(given) == 2 {
		s.Kernel, s.Initrd = given[0], given[1]
		return s
	}
	k := vmtest.Kernel(t)
	s.Kernel, s.Initrd = k.Vmlinux, vmtest.Initramfs(t, k, "../vmtest/testdata/guest")
	return s
}

// files names kernel and initramfs in the run as an ordinary user.
const files = "CUTOUT_TEST_FILES"

// A talker is the host's end of the tests' guest.
type talker struct {
	conn net.Conn
	in   *bufio.Reader
}

// connect waits for the hello.
func (g *talker) connect(ctx context.Context, c net.Conn) error {
	stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Now()) })
	defer stop()
	g.conn, g.in = c, bufio.NewReader(c)
	line, err := g.in.ReadString('\n')
	if err != nil {
		return err
	}
	if line != "hello\n" {
		return fmt.Errorf("got %q for a hello", line)
	}
	return nil
}

// wake greets a guest that has said its hello to somebody else.
func (g *talker) wake(ctx context.Context, c net.Conn) error {
	stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Now()) })
	defer stop()
	g.conn, g.in = c, bufio.NewReader(c)
	fmt.Fprintln(c, "ping")
	line, err := g.in.ReadString('\n')
	if err == nil && line != "pong\n" {
		err = fmt.Errorf("got %q for an answer", line)
	}
	return err
}

func (g *talker) ask(t testing.TB, words string) string {
	t.Helper()
	if _, err := fmt.Fprintln(g.conn, words); err != nil {
		t.Fatal(err)
	}
	line, err := g.in.ReadString('\n')
	if err != nil {
		t.Fatalf("ask %s: %v", words, err)
	}
	return strings.TrimSpace(line)
}

func boots(t testing.TB, s vm.Spec) (*qemu.Machine, *talker) {
	t.Helper()
	g := new(talker)
	start := time.Now()
	m, err := qemu.Boot(t.Context(), s, g.connect)
	if err != nil {
		var e *qemu.ExitError
		if errors.As(err, &e) {
			t.Logf("console:\n%s", e.Console)
		}
		t.Fatal(err)
	}
	t.Cleanup(m.Kill)
	t.Logf("hello after %v, %+v", time.Since(start).Round(time.Millisecond), m.Layers())
	return m, g
}

func TestBoot(t *testing.T) {
	s := spec(t)
	canary := bytes.Repeat([]byte("canary-in-a-disk"), 32)
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, bytes.Repeat(canary, 64), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(disk, os.O_RDWR, 0) // QEMU must get less
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, peer := pair(t)
	s.Disks = []vm.Disk{{File: f, Serial: "root-image"}}
	s.NIC = peer
	s.MAC = "02:00:00:00:12:34"
	s.CPUs = 2
	s.Cmdline = "test.word=1"
	m, g := boots(t, s)

	if got := g.ask(t, "disks"); got != "vda=root-image:64:1" {
		t.Errorf("disks %q", got)
	}
	checkConfined(t, m.Pid())
	if os.Geteuid() == 0 {
		// What matters is the descriptor, not what QEMU was told about it.
		checkReadOnly(t, m.Pid(), disk)
	}
	if got := g.ask(t, "links"); !strings.Contains(got, "eth0=02:00:00:00:12:34") {
		t.Errorf("links %q", got)
	}
	if got := g.ask(t, "read /sys/class/net/eth0/mtu"); !strings.Contains(got, "65520") {
		t.Errorf("mtu %q", got)
	}
	if got := g.ask(t, "read /dev/vda"); !strings.Contains(got, "canary-in-a-disk") {
		t.Errorf("disk starts with %q", got)
	}
	if got := g.ask(t, "cmdline"); !strings.HasSuffix(got, "test.word=1") {
		t.Errorf("kernel command line %q", got)
	}
	g.ask(t, "console a word to the console")
	for range 100 {
		if strings.Contains(m.Console(), "a word to the console") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !strings.Contains(m.Console(), "a word to the console") {
		t.Errorf("console %q", m.Console())
	}
	t.Run("dump", func(t *testing.T) { testDump(t, m, "a word to the console") })
	if got := g.ask(t, "ping"); got != "pong" {
		t.Errorf("after the dump: %q", got)
	}
	fmt.Fprintln(g.conn, "down")
	if err := m.Wait(); !errors.Is(err, qemu.ErrGuestReset) {
		t.Errorf("after the guest's reboot: %v", err)
	}
}

func testDump(t *testing.T, m *qemu.Machine, canary string) {
	f, err := os.Create(filepath.Join(t.TempDir(), "core"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := m.DumpMemory(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	core, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if len(core) < 256<<20 || !bytes.Contains(core, []byte(canary)) {
		t.Errorf("a core of %d bytes without what the guest holds", len(core))
	}
}

// pair makes the two ends of a NIC's link.
func pair(t testing.TB) (ours, theirs *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs = os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

// checkReadOnly looks at a process's open files for one by name.
func checkReadOnly(t *testing.T, pid int, name string) {
	t.Helper()
	found, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	seen := false
	for _, fd := range found {
		if to, _ := os.Readlink(fd); to != name {
			continue
		}
		seen = true
		st, err := os.Lstat(fd)
		if err != nil || st.Mode().Perm()&0o200 != 0 {
			t.Errorf("descriptor %s of %s is open for writing (%v)", filepath.Base(fd), name, err)
		}
	}
	if !seen {
		t.Errorf("%s is not among the open files of %d", name, pid)
	}
}

// The same as an ordinary user, who has no powers at all.
func TestBootAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: TestBoot ran as an ordinary user already")
	}
	s := spec(t)
	dir := t.TempDir()
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	for d := dir; d != os.TempDir() && len(d) > 1; d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	// The state directory is closed to other users.
	kernel, initrd := filepath.Join(dir, "kernel"), filepath.Join(dir, "initrd")
	for from, to := range map[string]string{s.Kernel: kernel, s.Initrd: initrd} {
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestBoot$", "-test.v")
	cmd.Env = []string{"TMPDIR=" + dir, files + "=" + kernel + " " + initrd, "CI=" + os.Getenv("CI")}
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	t.Logf("as an ordinary user:\n%s", out)
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestBoot")) {
		t.Errorf("failed as an ordinary user: %v", err)
	}
}

func TestBootFails(t *testing.T) {
	base := spec(t)
	text := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(text, []byte("no kernel"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		set     func(*vm.Spec)
		want    error
		message string
		console string
		notices int // one for a retry
	}{
		{"reset before the hello", func(s *vm.Spec) { s.Cmdline = "test.reset" }, qemu.ErrGuestReset, "", "", 1},
		{"panic", func(s *vm.Spec) { s.Cmdline = "test.panic" }, qemu.ErrGuestReset, "", "Kernel panic", 1},
		{"silence", func(s *vm.Spec) { s.Cmdline = "test.silent"; s.BootTimeout = 4 * time.Second }, qemu.ErrBootTimeout, "", "", 1},
		{"no memory", func(s *vm.Spec) { s.MemoryMiB = 1 << 30 }, qemu.ErrNoMemory, "", "", 0},
		{"no QEMU", func(s *vm.Spec) { s.QEMU = "/nonexistent/qemu" }, qemu.ErrNotFound, "", "", 0},
		{"no kernel", func(s *vm.Spec) { s.Kernel = "/nonexistent/kernel" }, os.ErrNotExist, "", "", 0},
		{"no kernel image", func(s *vm.Spec) { s.Kernel = text }, qemu.ErrKernel, "", "", 0},
		{"no disk serial", func(s *vm.Spec) { s.Disks = []vm.Disk{{Serial: strings.Repeat("x", 21)}} }, nil, "disk", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, notices := base, 0
			s.Notice = func(line string) { notices++; t.Log("notice:", line) }
			tt.set(&s)
			m, err := qemu.Boot(t.Context(), s, new(talker).connect)
			if err == nil {
				m.Kill()
				t.Fatal("booted")
			}
			t.Log(err)
			if tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.message) {
				t.Errorf("error %v", err)
			}
			if notices != tt.notices {
				t.Errorf("%d notices, want %d", notices, tt.notices)
			}
			var e *qemu.ExitError
			if tt.console != "" && (!errors.As(err, &e) || !strings.Contains(e.Console, tt.console)) {
				t.Errorf("console does not say %q: %+v", tt.console, e)
			}
		})
	}
}

// A /dev/kvm that does not work, or is not there, costs a notice, not the
// sandbox.
func TestBrokenKVM(t *testing.T) {
	s := spec(t)
	if v := vm.ProbeKVM(t.Context()); v.Usable {
		t.Skip("skipped: needs a host without working KVM")
	}
	var notice string
	s.Notice = func(line string) { notice = line }
	s.Accel = vm.KVM
	m, g := boots(t, s)
	if m.Accel() != vm.TCG || g.ask(t, "ping") != "pong" || !strings.Contains(notice, "software emulation") {
		t.Errorf("accelerator %v, notice %q", m.Accel(), notice)
	}
}

// The end of QEMU, however it comes, is seen.
func TestKilled(t *testing.T) {
	m, g := boots(t, spec(t))
	if err := syscall.Kill(m.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := g.in.ReadString('\n'); err == nil {
		t.Error("the control connection goes on")
	}
	var e *qemu.ExitError
	if err := m.Wait(); !errors.As(err, &e) || !strings.Contains(err.Error(), "killed") {
		t.Errorf("error %v", err)
	}
	if err := m.Quit(t.Context()); err != nil {
		t.Errorf("quit of a dead machine: %v", err)
	}
	if err := m.Stop(t.Context()); err == nil {
		t.Error("stop of a dead machine")
	}
}

func TestStopAndQuit(t *testing.T) {
	m, g := boots(t, spec(t))
	if err := m.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(g.conn, "ping")
	g.conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if line, err := g.in.ReadString('\n'); err == nil {
		t.Errorf("a stopped guest said %q", line)
	}
	g.conn.SetReadDeadline(time.Time{})
	if err := m.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if line, err := g.in.ReadString('\n'); err != nil || line != "pong\n" {
		t.Errorf("a resumed guest said %q, %v", line, err)
	}
	if err := m.Quit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Wait(); err != nil {
		t.Errorf("after quit: %v", err)
	}
}

// checkConfined asks the kernel what is left to a running QEMU: no
// capability, no way to regain one, and two filters, ours and its own.
func checkConfined(t *testing.T, pid int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(text)) {
		k, v, _ := strings.Cut(line, ":")
		got[k] = strings.TrimSpace(v)
	}
	const none = "0000000000000000"
	for k, want := range map[string]string{
		"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none,
		"NoNewPrivs": "1", "Seccomp": "2", "Seccomp_filters": "2",
	} {
		if got[k] != want {
			t.Errorf("%s of QEMU is %q, want %q", k, got[k], want)
		}
	}
}
