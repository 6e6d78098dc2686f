package cage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	ordinaryUID = 65534
	asUser      = "CUTOUT_TEST_AS_USER" // set in the run as an ordinary user
)

func TestMain(m *testing.M) {
	Main()
	if os.Args[0] == parentName {
		parentMain()
	}
	os.Exit(m.Run())
}

// ordinary runs the calling test again as an ordinary user, in a mount
// namespace of its own. A test that leaves layers out runs only there: a
// probe that nothing confines must never be root's.
func ordinary(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return true
	}
	dir := open(t, t.TempDir())
	if err := os.Chown(dir, ordinaryUID, ordinaryUID); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=100s")
	cmd.Env = []string{"TMPDIR=" + dir, "PATH=" + os.Getenv("PATH"), asUser + "=" + probe(t), "CI=" + os.Getenv("CI")}
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS,
		Credential: &syscall.Credential{Uid: ordinaryUID, Gid: ordinaryUID},
	}
	out, err := cmd.CombinedOutput()
	t.Logf("as an ordinary user:\n%s", out)
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("failed as an ordinary user: %v", err)
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

// probe builds the escape program.
func probe(t *testing.T) string {
	t.Helper()
	if built := os.Getenv(asUser); built != "" {
		return built
	}
	bin := filepath.Join(open(t, t.TempDir()), "escape")
	cmd := exec.Command("go", "build", "-o", bin, ".")
	cmd.Dir = "testdata/escape"
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the probe: %v\n%s", err, out)
	}
	return bin
}

// targets are the fields of the probe's Targets.
type targets struct {
	Keeper    int
	Address   uint64
	File      string
	Dir       string
	Unix      string
	Abstract  string
	TCP, UDP  int
	Inherited int
}

var inMemory = []byte("a value in the keeper's memory")

func newTargets(t *testing.T) targets {
	t.Helper()
	dir := t.TempDir()
	tg := targets{
		Keeper: os.Getpid(), Address: uint64(uintptr(unsafe.Pointer(&inMemory[0]))),
		Dir: dir, File: filepath.Join(dir, "secret"), Unix: filepath.Join(dir, "socket"),
		Abstract: "cutout-test-" + strconv.Itoa(os.Getpid()), Inherited: 1,
	}
	for _, f := range []string{tg.File, filepath.Join(dir, "victim")} {
		if err := os.WriteFile(f, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	listen := func(network, addr string) net.Addr {
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l.Addr()
	}
	listen("unix", tg.Unix)
	listen("unix", "@"+tg.Abstract)
	tg.TCP = listen("tcp4", "127.0.0.1:0").(*net.TCPAddr).Port
	u, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	tg.UDP = u.LocalAddr().(*net.UDPAddr).Port
	return tg
}

// try runs the probe in a cage and returns what it reached.
func try(t *testing.T, weak bool, omit ...string) (reached []string, l Layers) {
	t.Helper()
	tg := newTargets(t)
	arg, err := json.Marshal(tg)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	bin := probe(t)
	p, err := Start(Config{
		Path: bin, Args: []string{bin, string(arg)}, Stdout: w, Stderr: os.Stderr,
		Files: []*os.File{w}, Weak: weak, omit: omit,
	})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	p.Wait()
	results := map[string]string{}
	dec := json.NewDecoder(bytes.NewReader(out))
	if err := dec.Decode(&results); err != nil {
		t.Fatalf("the probe said %q: %v", out, err)
	}
	rest := out[dec.InputOffset():]
	switch strings.TrimSpace(string(rest)) {
	case "memory":
		reached = append(reached, "run from memory")
	case "shell":
		reached = append(reached, "run a shell")
	}
	for name, failure := range results {
		if failure == "" {
			reached = append(reached, name)
		}
	}
	slices.Sort(reached)
	return reached, p.Layers()
}

// Nothing is reached from the whole cage, as root and as an ordinary user.
func TestCageHolds(t *testing.T) {
	t.Run("self", func(t *testing.T) {
		reached, l := try(t, false)
		t.Logf("%+v", l)
		if len(reached) > 0 {
			t.Errorf("reached: %s", strings.Join(reached, ", "))
		}
		if os.Geteuid() == 0 && (l.UID < firstUID || l.UID >= firstUID+numUIDs) {
			t.Errorf("ran as uid %d", l.UID)
		}
	})
	if os.Geteuid() == 0 {
		ordinary(t)
	}
}

// Each layer closes what the others leave open: without it, something is
// reached that was not before. What only the cage's minimum keeps in must
// hold without namespaces as well.
func TestLayers(t *testing.T) {
	if !ordinary(t) {
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

// Without a part of the minimum nothing starts, and the error names the part.
func TestMinimum(t *testing.T) {
	if !ordinary(t) {
		return
	}
	for _, tt := range []struct {
		name string
		omit []string
		want string
	}{
		{"no filter", []string{"seccomp"}, "system call filter"},
		{"no files", []string{"namespaces", "landlock"}, "file confinement"},
		{"no processes", []string{"namespaces", "landlock"}, "process confinement"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Start(Config{Path: probe(t), Args: []string{"x", "sleep"}, omit: tt.omit})
			if err == nil {
				p.Kill()
				t.Fatal("started")
			}
			var missing *MissingError
			if !errors.As(err, &missing) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v", err)
			}
		})
	}
}

const parentName = "cutout-test-parent"

// parentMain starts a cage, says its pid and waits to be killed.
func parentMain() {
	p, err := Start(Config{Path: os.Args[1], Args: []string{"escape", "sleep"}, Weak: true, omit: strings.Fields(os.Args[2])})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println(p.Pid())
	time.Sleep(time.Minute)
}

// The program dies with its keeper, however that dies.
func TestDeath(t *testing.T) {
	t.Run("self", func(t *testing.T) {
		for _, omit := range []string{"", "user", "namespaces"} {
			t.Run("without "+omit, func(t *testing.T) { testDeath(t, omit) })
		}
	})
	if os.Geteuid() == 0 {
		ordinary(t)
	}
}

func testDeath(t *testing.T, omit string) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{parentName, probe(t), omit}
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
