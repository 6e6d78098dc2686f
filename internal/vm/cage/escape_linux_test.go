package cage

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// builtProbe is the path of the escape program, in a run as on another host.
const builtProbe = "CUTOUT_TEST_PROBE"

// probe builds the escape program, once.
func probe(t *testing.T) string {
	t.Helper()
	if built := os.Getenv(builtProbe); built != "" {
		return built
	}
	dir, err := buildProbe()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "escape")
}

var buildProbe = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "escape"); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", dir, ".")
	cmd.Dir = "testdata/escape"
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("build the probe: %w\n%s", err, out)
	}
	return dir, os.Chmod(dir, 0o755) // for other users
})

func removeProbe() {
	if os.Getenv(builtProbe) == "" {
		if dir, _ := buildProbe(); dir != "" {
			os.RemoveAll(dir)
		}
	}
}

// targets are the fields of the probe's Targets.
type targets struct {
	Keeper    int
	Address   uint64
	File      string
	Dir       string
	Image     string
	Overlay   int
	Unix      string
	Abstract  string
	TCP, UDP  int
	TCP6      int
	Inherited int

	image *os.File // Image, open for reading
}

var inMemory = []byte("a value in the keeper's memory")

func newTargets(t *testing.T) targets {
	t.Helper()
	dir, err := os.MkdirTemp("", "targets")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cache := filepath.Join(dir, "images")
	tg := targets{
		Keeper: os.Getpid(), Address: uint64(uintptr(unsafe.Pointer(&inMemory[0]))),
		Dir: dir, File: filepath.Join(dir, "secret"), Image: filepath.Join(cache, "image"), Unix: filepath.Join(dir, "socket"),
		Abstract: "cutout-test-" + rand.Text(), Inherited: 2,
	}
	if err := os.Mkdir(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	for f, mode := range map[string]os.FileMode{tg.File: 0o600, filepath.Join(dir, "victim"): 0o600, tg.Image: 0o400} {
		if err := os.WriteFile(f, []byte("secret"), mode); err != nil {
			t.Fatal(err)
		}
	}
	opened := func(path string, flags int) *os.File {
		f, err := os.OpenFile(path, flags, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	tg.image = opened(tg.Image, os.O_RDONLY)
	// Another sandbox's disk has no name, and is its keeper's alone.
	overlay := opened(filepath.Join(dir, "overlay"), os.O_RDWR|os.O_CREATE)
	os.Remove(overlay.Name())
	tg.Overlay = int(overlay.Fd())
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
	tg.TCP6 = listen("tcp6", "[::1]:0").(*net.TCPAddr).Port
	u, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	tg.UDP = u.LocalAddr().(*net.UDPAddr).Port
	return tg
}

// attempts starts the probe, by start, and returns what came of each attempt:
// "" if it was reached.
func attempts(t *testing.T, start func(bin string, args []string, files []*os.File) (wait func())) map[string]string {
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
	wait := start(bin, []string{bin, string(arg)}, []*os.File{w, tg.image})
	w.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	wait()
	results := map[string]string{"run from memory": "not run", "run a shell": "not run"}
	dec := json.NewDecoder(bytes.NewReader(out))
	if err := dec.Decode(&results); err != nil {
		t.Fatalf("the probe said %q: %v", out, err)
	}
	switch strings.TrimSpace(string(out[dec.InputOffset():])) {
	case "memory":
		results["run from memory"] = ""
	case "shell":
		results["run a shell"] = ""
	}
	return results
}

// reached are the names of the attempts that succeeded.
func reached(results map[string]string) (names []string) {
	for name, failure := range results {
		if failure == "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// try runs the probe in a cage and returns what it reached.
func try(t *testing.T, weak bool, omit ...string) (names []string, l Layers) {
	t.Helper()
	return reached(attempts(t, func(bin string, args []string, files []*os.File) func() {
		p, err := Start(Config{Path: bin, Args: args, Stdout: files[0], Stderr: os.Stderr, Files: files, Weak: weak, omit: omit})
		if err != nil {
			t.Fatal(err)
		}
		l = p.Layers()
		return func() { p.Wait() }
	})), l
}

// Every attempt that the probe makes succeeds where there is no cage: as the
// user who started it, or as root of namespaces of its own. So one that fails
// in the cage says something.
func TestProbeReaches(t *testing.T) {
	runs := map[string]*syscall.SysProcAttr{
		"the same user":                {},
		"the same user, a shell first": {},
		"root of its own namespaces": {
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		},
	}
	if !on(t, ordinary) {
		return
	}
	failures := map[string][]string{}
	for name, attr := range runs {
		results := attempts(t, func(bin string, args []string, files []*os.File) func() {
			if strings.HasSuffix(name, "first") {
				args = append(args, "shell")
			}
			cmd := exec.Command(bin, args[1:]...)
			cmd.Env = []string{"A=1"}
			cmd.Stdout, cmd.Stderr = files[0], os.Stderr
			stray, err := os.Open("/dev/null")
			if err != nil {
				t.Fatal(err)
			}
			defer stray.Close()
			cmd.ExtraFiles = append(files, stray)
			cmd.SysProcAttr = attr
			if attr.Cloneflags != 0 {
				// A root directory that may be spoilt.
				attr.Chroot, cmd.Dir = throwaway(t, bin), "/"
				cmd.Path, cmd.Args[0] = "/escape", "/escape"
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			return func() { cmd.Wait() }
		})
		for attempt, failure := range results {
			failures[attempt] = append(failures[attempt], failure)
		}
		t.Logf("%s reaches: %s", name, strings.Join(reached(results), ", "))
	}
	for _, attempt := range slices.Sorted(maps.Keys(failures)) {
		switch all := failures[attempt]; {
		case slices.Contains(all, ""):
		case !slices.ContainsFunc(all, func(f string) bool { return f != unix.EAFNOSUPPORT.Error() && f != unix.ENOSYS.Error() }):
			t.Logf("nobody reaches %s, which this kernel does not have", attempt)
		default:
			t.Errorf("nobody reaches %s: %s", attempt, strings.Join(failures[attempt], "; "))
		}
	}
}

// throwaway is a root directory with the probe alone.
func throwaway(t *testing.T, bin string) string {
	t.Helper()
	dir := t.TempDir()
	if err := exec.Command("cp", bin, filepath.Join(dir, "escape")).Run(); err != nil {
		t.Fatal(err)
	}
	return dir
}
