// Package e2e runs the real cutout with real machines against servers on
// this machine. It needs what make setup makes; the environment variable
// CUTOUT may name another binary.
package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cutoutdev/cutout/internal/testnet"
	"github.com/cutoutdev/cutout/internal/vm"
	"github.com/cutoutdev/cutout/test/script"
)

// The binary and the home that make setup has filled.
var cutout, sharedHome string

func TestMain(m *testing.M) {
	vm.ProbeMain()
	if err := locate(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func locate() error {
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	if cutout = os.Getenv("CUTOUT"); cutout == "" {
		cutout = filepath.Join(root, "bin", "cutout")
	}
	if sharedHome = os.Getenv("CUTOUT_HOME"); sharedHome == "" {
		sharedHome = filepath.Join(root, ".cutout")
	}
	for _, path := range []string{cutout, filepath.Join(sharedHome, "kernel", "vmlinux")} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%w (run make setup first)", err)
		}
	}
	return nil
}

// newHome makes a home of the test's own that shares kernel, images and
// snapshots.
func newHome(dir string) (string, error) {
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return "", err
	}
	for _, name := range []string{"kernel", "images", "snapshots"} {
		if err := os.Symlink(filepath.Join(sharedHome, name), filepath.Join(home, name)); err != nil {
			return "", err
		}
	}
	return home, nil
}

// newValue is a credential that exists nowhere else.
func newValue() string {
	var b [15]byte
	rand.Read(b[:])
	return "sk-live-" + hex.EncodeToString(b[:])
}

// A world is the internet of one test.
type world struct {
	ca        *testnet.CA
	upstreams map[string]*testnet.Upstream // by the name under which scripts know them
}

// newWorld starts the servers: API and OTHER are good, PLAIN has no TLS, BAD
// has a certificate that nobody vouches for.
func newWorld() (*world, error) {
	ca, err := testnet.NewCA()
	if err != nil {
		return nil, err
	}
	good, err1 := ca.Cert("api.example.test", "api.example.com", "uploads.example.com", "*.sub.example.test")
	other, err2 := ca.Cert("other.example.test", "files.example.test")
	bad, err3 := ca.SelfSigned("bad.example.test")
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	w := &world{ca: ca, upstreams: map[string]*testnet.Upstream{}}
	for name, cfg := range map[string]testnet.UpstreamConfig{
		"API": {Cert: &good}, "OTHER": {Cert: &other}, "BAD": {Cert: &bad}, "PLAIN": {},
	} {
		if w.upstreams[name], err = testnet.StartUpstream(cfg); err != nil {
			w.close()
			return nil, err
		}
	}
	return w, nil
}

func (w *world) close() {
	for _, u := range w.upstreams {
		u.Close()
	}
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"received": received,
			"clean":    clean,
			"nothing":  nothing,
			"status":   script.Status,
			"mistake":  script.Mistake,
		},
	})
}

// setup gives a script a home, an internet and a value: $API_KEY, $BASIC for
// it as the password of "user", $API (and OTHER, PLAIN, BAD) as ADDR:PORT,
// ca.pem.
func setup(env *testscript.Env) error {
	home, err := newHome(env.WorkDir)
	if err != nil {
		return err
	}
	w, err := newWorld()
	if err != nil {
		return err
	}
	env.Defer(w.close)
	env.Values["world"] = w
	if err := w.ca.WriteFile(filepath.Join(env.WorkDir, "ca.pem")); err != nil {
		return err
	}
	for name, u := range w.upstreams {
		env.Setenv(name, u.Addr().String())
	}
	env.Setenv("CUTOUT_HOME", home)
	value := newValue()
	env.Setenv("API_KEY", value)
	env.Setenv("BASIC", regexp.QuoteMeta(base64.StdEncoding.EncodeToString([]byte("user:"+value))))
	env.Setenv("CUTOUT_BIN", filepath.Dir(cutout))
	env.Setenv("PATH", filepath.Dir(cutout)+":"+os.Getenv("PATH"))
	return nil
}

// received NAME REGEXP: some request that the server received matches. With
// "!" none does.
func received(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: received NAME REGEXP")
	}
	u := ts.Value("world").(*world).upstreams[args[0]]
	if u == nil {
		ts.Fatalf("there is no server %s", args[0])
	}
	re, err := regexp.Compile(args[1])
	ts.Check(err)
	found := false
	var all strings.Builder
	for _, r := range u.Requests() {
		found = found || re.MatchString(r.Text())
		all.WriteString(r.Text() + "\n")
	}
	if found == neg {
		ts.Fatalf("%s received:\n%s", args[0], all.String())
	}
}

// clean: no sandbox of this home runs or has left anything but logs.
func clean(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(checkClean(ts.Getenv("CUTOUT_HOME")))
}

// nothing: what clean says, and no sandbox ever was.
func nothing(ts *testscript.TestScript, neg bool, args []string) {
	clean(ts, neg, args)
	left, err := filepath.Glob(filepath.Join(ts.Getenv("CUTOUT_HOME"), "sandboxes", "*"))
	ts.Check(err)
	if len(left) > 0 {
		ts.Fatalf("left behind: %v", left)
	}
}

func checkClean(home string) error {
	err := filepath.WalkDir(filepath.Join(home, "run"), func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case path != filepath.Join(home, "run"):
			return fmt.Errorf("%s is left", path)
		}
		return nil
	})
	left, lerr := processes(home)
	if lerr == nil && len(left) > 0 {
		lerr = fmt.Errorf("processes are left: %v", left)
	}
	for what, list := range map[string]string{"mount": "/proc/self/mountinfo", "socket": "/proc/net/unix"} {
		text, rerr := os.ReadFile(list)
		if rerr == nil && strings.Contains(string(text), home+"/") {
			rerr = fmt.Errorf("a %s is left", what)
		}
		err = errors.Join(err, rerr)
	}
	return errors.Join(err, lerr)
}

// processes returns the processes that have something of home open.
func processes(home string) ([]string, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, dir := range dirs {
		fds, _ := os.ReadDir(filepath.Join(dir, "fd")) // gone meanwhile, or another user's
		for _, fd := range fds {
			to, _ := os.Readlink(filepath.Join(dir, "fd", fd.Name()))
			if strings.HasPrefix(to, home+"/") {
				cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
				out = append(out, filepath.Base(dir)+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
				break
			}
		}
	}
	return out, nil
}

// eventually waits until check holds, at most for limit.
func eventually(t *testing.T, limit time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
