package cage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Main()
	if os.Args[0] == parentName {
		parentMain()
	}
	if err := become(); err != nil {
		fmt.Fprintln(os.Stderr, "become another host:", err)
		os.Exit(1)
	}
	code := m.Run()
	removeProbe()
	os.Exit(code)
}

// Attack E9: nothing is reached from the cage that each kind of host has, as
// root and as an ordinary user, and the layers are those that it can have.
func TestCageHolds(t *testing.T) {
	for _, tt := range []struct {
		host       host
		user, root bool // a user namespace, a root directory of its own
	}{
		{root, true, true},
		{ordinary, true, true},
		{root.lacking("user namespaces"), false, true},
		{ordinary.lacking("user namespaces"), false, false},
		{root.lacking("mounts"), false, false},
		{ordinary.lacking("mounts"), false, false},
		{root.lacking("landlock"), true, true},
		{ordinary.lacking("landlock"), true, true},
		{root.lacking("user namespaces, landlock"), false, true},
	} {
		t.Run(strings.TrimSuffix(tt.host.user()+" without "+tt.host.lacks, " without "), func(t *testing.T) {
			if !on(t, tt.host) {
				return
			}
			names, l := try(t, false)
			t.Logf("%+v", l)
			if i := slices.Index(names, "root directory"); i >= 0 && l.Landlock == 0 && l.Root {
				names = slices.Delete(names, i, i+1) // the cage's own, which landlock closes as well
			}
			if len(names) > 0 {
				t.Errorf("reached: %s", strings.Join(names, ", "))
			}
			if l.UserNS != tt.user || l.Root != tt.root || l.PIDs != tt.root || l.NetNS != tt.root || !l.Seccomp {
				t.Errorf("the layers are %+v", l)
			}
			if (l.Landlock == 0) != strings.Contains(tt.host.lacks, "landlock") || (l.Without == "") != tt.user {
				t.Errorf("the layers are %+v", l)
			}
			if os.Geteuid() == 0 && (l.UID < firstUID || l.UID >= firstUID+numUIDs) {
				t.Errorf("ran as uid %d", l.UID)
			}
		})
	}
}

// Each layer closes what the others leave open: without it, something is
// reached that was not before. What only the cage's minimum keeps in must
// hold without namespaces as well.
func TestLayers(t *testing.T) {
	if !on(t, ordinary) {
		return
	}
	whole, err := Report()
	if err != nil {
		t.Fatal(err)
	}
	if len(whole.Missing())+len(whole.Weaker()) > 0 {
		if os.Getenv("CI") != "" {
			t.Fatalf("this host cannot build the whole cage: %+v", whole)
		}
		t.Skipf("skipped: this host cannot build the whole cage: %+v", whole)
	}
	for _, tt := range []struct {
		name string
		omit []string
		must []string // is reached
		not  []string // is not; nil = nothing else than must
	}{
		{name: "without namespaces", omit: []string{"namespaces"}, must: nil},
		{name: "without landlock", omit: []string{"landlock"}, must: []string{"root directory"}},
		{
			name: "without filter", omit: []string{"seccomp"}, must: []string{
				"fork", "io_uring", "netlink", "shared memory", "socket pair",
			},
			not: []string{"file", "abstract socket", "tcp", "read memory", "trace", "unix socket", "signal", "run a shell", "run from memory"},
		},
		{
			name: "filter alone", omit: []string{"namespaces", "landlock"}, must: []string{
				"file", "environ", "memory file", "create", "passwd", "run a shell",
			},
			not: []string{"abstract socket", "fork", "io_uring", "netlink", "read memory", "signal", "tcp", "trace", "udp", "unix socket"},
		},
		{
			name: "landlock alone", omit: []string{"namespaces", "seccomp"}, must: []string{
				"udp", "unix socket", "netlink",
			},
			not: []string{"file", "environ", "read memory", "trace", "tcp", "abstract socket", "signal", "run a shell", "run from memory"},
		},
		{
			name: "namespaces alone", omit: []string{"landlock", "seccomp"}, must: []string{
				"fork", "netlink", "root directory",
			},
			not: []string{"file", "environ", "read memory", "trace", "tcp", "abstract socket", "signal", "unix socket"},
		},
		{
			name: "nothing", omit: []string{"namespaces", "landlock", "seccomp"}, must: []string{
				"abstract socket", "create", "environ", "file", "fork", "memory file", "read memory", "run from memory", "signal", "tcp", "trace", "udp", "unix socket",
			},
			not: []string{"become root"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reached, _ := try(t, true, tt.omit...)
			t.Logf("reached: %s", strings.Join(reached, ", "))
			for _, name := range tt.must {
				if !slices.Contains(reached, name) {
					t.Errorf("not reached: %s; so the layer is not what prevents it", name)
				}
			}
			for _, name := range reached {
				if slices.Contains(tt.not, name) || tt.not == nil && !slices.Contains(tt.must, name) {
					t.Errorf("reached: %s", name)
				}
			}
		})
	}
}

// On a host that lacks a part of the minimum nothing starts, and the error
// names the part; what is allowed to be weak starts.
func TestMinimum(t *testing.T) {
	const files, processes, filter = "file confinement", "process confinement", "system call filter"
	for _, tt := range []struct {
		host host
		want []string
	}{
		{ordinary.lacking("user namespaces, landlock"), []string{files, processes}},
		{ordinary.lacking("mounts, landlock"), []string{files, processes}},
		{root.lacking("mounts, landlock"), []string{files, processes}},
		{ordinary.lacking("filters"), []string{filter}},
		{root.lacking("filters"), []string{filter}},
		{ordinary.lacking("user namespaces, filters"), []string{filter}},
		{root.lacking("user namespaces, filters"), []string{filter}},
		{ordinary.lacking("user namespaces, landlock, filters"), []string{files, processes, filter}},
	} {
		t.Run(tt.host.user()+" without "+tt.host.lacks, func(t *testing.T) {
			if !on(t, tt.host) {
				return
			}
			cfg := Config{Path: probe(t), Args: []string{"x", "sleep"}}
			p, err := Start(cfg)
			if err == nil {
				p.Kill()
				t.Fatalf("started: %+v", p.Layers())
			}
			if missing := (*MissingError)(nil); !errors.As(err, &missing) {
				t.Fatalf("error %v", err)
			}
			for _, part := range []string{files, processes, filter} {
				if strings.Contains(err.Error(), part) != slices.Contains(tt.want, part) {
					t.Errorf("error %v, want %q in it", err, tt.want)
				}
			}
			cfg.Weak = true
			if p, err = Start(cfg); err != nil {
				t.Fatalf("weak: %v", err)
			}
			if !running(p.Pid()) {
				t.Error("what may be weak does not run")
			}
			p.Kill()
		})
	}
}

const parentName = "cutout-test-parent"

// parentMain starts a cage, says its pid and waits to be killed.
func parentMain() {
	p, err := Start(Config{Path: os.Args[1], Args: []string{"escape", "sleep"}})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println(p.Pid())
	time.Sleep(time.Minute)
}

// The program dies with its keeper, however that dies.
func TestDeath(t *testing.T) {
	for _, h := range []host{root, ordinary, root.lacking("user namespaces"), ordinary.lacking("user namespaces"), root.lacking("mounts")} {
		t.Run(strings.TrimSuffix(h.user()+" without "+h.lacks, " without "), func(t *testing.T) {
			if on(t, h) {
				testDeath(t)
			}
		})
	}
}

func testDeath(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{parentName, probe(t)}
	cmd.Env = []string{}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		cmd.Process.Kill()
		t.Fatalf("the parent started no program: %v", err)
	}
	if !running(pid) {
		t.Fatalf("process %d does not run", pid)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	for start := time.Now(); running(pid); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			unix.Kill(pid, unix.SIGKILL)
			t.Fatal("the program outlives its keeper")
		}
	}
}

// running says whether a process exists and is no zombie.
func running(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	after := text[bytes.LastIndexByte(text, ')')+1:]
	return !bytes.HasPrefix(after, []byte(" Z")) && !bytes.HasPrefix(after, []byte(" X"))
}

func TestReport(t *testing.T) {
	l, err := Report()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v, missing %q, weaker %q", l, l.Missing(), l.Weaker())
	if !l.Seccomp {
		t.Error("no filter")
	}
}

func TestStartErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no program", Config{Path: "/nonexistent"}, "no such file"},
		{"relative", Config{Path: "sh"}, "not absolute"},
		{"no program file", Config{Path: "/etc/passwd"}, "bad magic"},
		{"no such file", Config{Path: "/bin/true", Read: []string{"/nonexistent"}}, "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Start(tt.cfg)
			if err == nil {
				p.Kill()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// An ordinary dynamic program runs, with its exit status.
func TestRunsPrograms(t *testing.T) {
	for _, omit := range []string{"", "user", "namespaces"} {
		t.Run("without "+omit, func(t *testing.T) {
			p, err := Start(Config{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 7"}, Weak: true, omit: strings.Fields(omit)})
			if err != nil {
				t.Fatal(err)
			}
			state, err := p.Wait()
			if err != nil || state.ExitCode() != 7 {
				t.Errorf("%v, %v", state, err)
			}
			if omit == "namespaces" && p.Layers().Root || omit == "" && !p.Layers().Root {
				t.Errorf("%+v", p.Layers())
			}
		})
	}
}

// Files on mounts with restrictions of their own, which a user namespace may
// not lift, can be given to a program.
func TestLockedMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: needs root to mount; the run as root covers it")
	}
	const inside = "CUTOUT_TEST_MOUNTED"
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestLockedMounts$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir := open(t, t.TempDir())
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOEXEC|unix.MS_NOATIME|unix.MS_NOSUID, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	// /dev/null stands for any device; its mount may be restricted as well.
	p, err := Start(Config{Path: "/bin/sh", Args: []string{"sh", "-c", "read x <" + file + "; : >/dev/null || exit 3"}, Read: []string{file}, Devices: []string{"/dev/null"}, Stderr: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	state, err := p.Wait()
	if err != nil || !state.Success() {
		t.Errorf("%v, %v", state, err)
	}
	if l := p.Layers(); !l.UserNS {
		t.Errorf("without a user namespace: %+v", l)
	}
}

const monitor = "/usr/bin/qemu-system-x86_64"

// BenchmarkCaged and BenchmarkBare start and end QEMU; the difference is the
// cage's cost.
func BenchmarkCaged(b *testing.B) {
	if _, err := os.Stat(monitor); err != nil {
		b.Skipf("skipped: needs %s", monitor)
	}
	for b.Loop() {
		p, err := Start(Config{Path: monitor, Args: []string{"qemu", "--version"}})
		if err != nil {
			b.Fatal(err)
		}
		p.Wait()
	}
}

func BenchmarkBare(b *testing.B) {
	if _, err := os.Stat(monitor); err != nil {
		b.Skipf("skipped: needs %s", monitor)
	}
	for b.Loop() {
		if err := exec.Command(monitor, "--version").Run(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTree reads what the program links to.
func BenchmarkTree(b *testing.B) {
	if _, err := os.Stat(monitor); err != nil {
		b.Skipf("skipped: needs %s", monitor)
	}
	for b.Loop() {
		if _, err := tree(Config{Path: monitor}); err != nil {
			b.Fatal(err)
		}
	}
}
