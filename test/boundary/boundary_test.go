//go:build linux

// Package boundary runs the real cutout boundary around workloads that are no
// machines, against servers on this machine: what works for them, and what
// they must not reach.
package boundary

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// binary is the program that is tested.
var binary string

func TestMain(m *testing.M) {
	if asWorkload(os.Args) {
		return
	}
	dir, err := os.MkdirTemp("", "cutout-boundary-") // not below a test's own, which is closed to others
	if err != nil {
		panic(err)
	}
	os.Chmod(dir, 0o755)
	code := 1
	if err := build(dir); err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, err)
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// build makes the program, and puts this one beside it, as a workload.
func build(dir string) error {
	binary = filepath.Join(dir, "cutout")
	cmd := exec.Command("go", "build", "-trimpath", "-o", binary, "../../cmd/cutout")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return exec.Command("cp", self, filepath.Join(dir, "workload")).Run()
}

// A place is one user's: root, or an ordinary one.
type place struct {
	t        *testing.T
	uid      int
	dir      string // everybody may enter it
	home     string
	value    string
	ca       *testnet.CA
	api      *testnet.Upstream // api.example.test
	other    *testnet.Upstream // other.example.test
	git      *testnet.Upstream // git.example.test, which has repo.git for me, whose password is the value
	plain    *testnet.Upstream // api.example.test at port 80
	impostor *testnet.Upstream // impostor.example.test, which does not prove to be that
	env      []string
}

// ordinaryUID is nobody's: no name, no home, no group.
const ordinaryUID = 23456

// everyone runs f as root and as an ordinary user.
func everyone(t *testing.T, f func(t *testing.T, p *place)) {
	if os.Geteuid() != 0 {
		t.Run("ordinary user", func(t *testing.T) { f(t, newPlace(t, os.Geteuid())) })
		return
	}
	t.Run("root", func(t *testing.T) { f(t, newPlace(t, 0)) })
	t.Run("ordinary user", func(t *testing.T) { f(t, newPlace(t, ordinaryUID)) })
}

var places atomic.Int32 // that were made; their names are short, since sockets' must be

func newPlace(t *testing.T, uid int) *place {
	t.Helper()
	p := &place{t: t, uid: uid, dir: filepath.Join(filepath.Dir(binary), fmt.Sprint(places.Add(1)))}
	p.home = filepath.Join(p.dir, "home")
	ca, err := testnet.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	p.ca = ca
	serve := func(cfg testnet.UpstreamConfig) *testnet.Upstream {
		u, err := testnet.StartUpstream(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { u.Close() })
		return u
	}
	start := func(h http.Handler, names ...string) *testnet.Upstream {
		cert, err := ca.Cert(names...)
		if err != nil {
			t.Fatal(err)
		}
		return serve(testnet.UpstreamConfig{Cert: &cert, Handler: h})
	}
	var b [15]byte
	rand.Read(b[:])
	p.value = "sk-live-" + hex.EncodeToString(b[:])
	repos := t.TempDir()
	repo, err := testnet.GitServer(repos, "repo", "me", p.value)
	if err != nil {
		t.Fatal(err)
	}
	p.api, p.other, p.git = start(nil, "api.example.test", "api.example.com"), start(nil, "other.example.test"), start(repo, "git.example.test")
	own, err := ca.SelfSigned("impostor.example.test")
	if err != nil {
		t.Fatal(err)
	}
	p.plain, p.impostor = serve(testnet.UpstreamConfig{}), serve(testnet.UpstreamConfig{Cert: &own})
	p.env = []string{"PATH=" + os.Getenv("PATH"), "CUTOUT_HOME=" + p.home, "API_KEY=" + p.value, "LC_ALL=C.UTF-8"}
	for _, err := range []error{
		os.Mkdir(p.dir, 0o755), os.Mkdir(p.home, 0o700), ca.WriteFile(filepath.Join(p.dir, "ca.pem")),
		os.Link(filepath.Join(filepath.Dir(binary), "workload"), filepath.Join(p.dir, "workload")),
		os.Chown(p.dir, uid, uid), os.Chown(p.home, uid, uid),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// upstreams are the flags that let this machine serve the names.
func (p *place) upstreams() []string {
	return []string{
		"--connect-to", "api.example.test:443=" + p.api.Addr().String(),
		"--connect-to", "other.example.test:443=" + p.other.Addr().String(),
		"--connect-to", "git.example.test:443=" + p.git.Addr().String(),
		"--connect-to", "api.example.test:80=" + p.plain.Addr().String(),
		"--connect-to", "impostor.example.test:443=" + p.impostor.Addr().String(),
		"--tls-upstream-ca-cert", filepath.Join(p.dir, "ca.pem"),
	}
}

// secretFlag is that of every boundary of a place.
const secretFlag = "API_KEY@api.example.test,git.example.test,impostor.example.test"

// command prepares cutout as the place's user.
func (p *place) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	p.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env, cmd.Dir, cmd.WaitDelay = p.env, p.dir, time.Second
	if p.uid != os.Geteuid() {
		// Where /dev is not set up as distributions do, the user has one that is.
		cmd.Path = "/proc/self/exe"
		cmd.Args = append([]string{asUser, fmt.Sprint(p.uid), binary}, args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	}
	return cmd
}

// run runs cutout boundary with the secret and the upstreams.
func (p *place) run(args ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	args = append(append([]string{"boundary", "--secret", secretFlag}, p.upstreams()...), args...)
	cmd := p.command(args...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		p.t.Fatal(err)
	}
	return out.String(), said.String(), cmd.ProcessState.ExitCode()
}

// asUser is the name under which the test takes a user's place: argument 1 is
// the id, the rest a command.
const asUser = "cutout-test-as-user"

// becomeUser does what asUser says, in a mount namespace of its own.
func becomeUser(args []string) error {
	var uid int
	fmt.Sscan(args[1], &uid)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	old := unix.Umask(0)
	err := unix.Mknod("/dev/net/tun", unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200)))
	unix.Umask(old)
	if err != nil {
		return err
	}
	for _, step := range []error{syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid)} {
		if step != nil {
			return step
		}
	}
	return syscall.Exec(args[2], args[2:], os.Environ())
}

// TestCommand: what people run works, under the gates of a machine: the allowed
// host gets the value, another the placeholder; a request in clear, with a
// wrong Host, to a server that proves nothing or to an address that was not
// resolved is refused with its reason; and neither the output nor the log has
// the value.
func TestCommand(t *testing.T) {
	everyone(t, func(t *testing.T, p *place) {
		out, said, code := p.run("--", "sh", "-c", `
			echo "variable: $API_KEY"
			echo "curl: $(curl -sS -H "Authorization: Bearer $API_KEY" https://api.example.test/ok)"
			echo "echo: $(curl -sS -H "Authorization: Bearer $API_KEY" https://api.example.test/echo | grep -o 'Bearer.*')"
			echo "other: $(curl -sSk -H "Authorization: Bearer $API_KEY" https://other.example.test/ok)"
			echo "fronted: $(curl -sS -o /dev/null -w '%{http_code}' -H 'Host: other.example.test' -H "Authorization: Bearer $API_KEY" https://api.example.test/ok)"
			echo "in clear: $(curl -sS -H "Authorization: Bearer $API_KEY" http://api.example.test/ok)"
			echo "impostor: $(curl -sS -H "Authorization: Bearer $API_KEY" https://impostor.example.test/ok)"
			echo "not resolved: $(curl -sS --resolve api.example.test:443:93.184.216.34 -H "Authorization: Bearer $API_KEY" https://api.example.test/ok)"
			echo "python: $(/usr/bin/python3 -c '
import os, urllib.request as u
r = u.Request("https://api.example.test/ok", headers={"Authorization": "Bearer " + os.environ["API_KEY"]})
print(u.urlopen(r).read().decode())')"
			cd "$(mktemp -d)"
			git clone -q "https://me:$API_KEY@git.example.test/repo.git" 2>/dev/null && cd repo &&
				git -c user.name=me -c user.email=me@example.test commit -q --allow-empty -m one && git push -q origin HEAD:main && echo git: pushed
			exit 7`)
		if code != 7 {
			t.Errorf("exit status %d\n%s", code, said)
		}
		for _, want := range []string{
			"variable: $MSB_API_KEY\n", "curl: ok\n", "echo: Bearer $MSB_API_KEY", "fronted: 421\n", "python: ok\n", "other: ok\n", "git: pushed\n",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("the command did not print %q:\n%s%s", want, out, said)
			}
		}
		for line, reason := range map[string]policy.Reason{
			"in clear": policy.PlainHTTP, "impostor": policy.UpstreamUnverified, "not resolved": policy.NotPinned,
		} {
			if !strings.Contains(out, line+`: {"type"`) || !strings.Contains(out, fmt.Sprintf(`"reason":%q`, reason)) || !strings.Contains(said, string(reason)) {
				t.Errorf("%s was not refused as %s:\n%s%s", line, reason, out, said)
			}
		}
		if n := len(p.plain.Requests()) + len(p.impostor.Requests()); n > 0 {
			t.Errorf("%d requests went where none may", n)
		}
		if strings.Contains(out+said, p.value) {
			t.Errorf("the value was printed:\n%s%s", out, said)
		}
		received := 0
		for _, r := range p.api.Requests() {
			if r.Header.Get("Authorization") == "Bearer "+p.value {
				received++
			}
		}
		if received != 3 {
			t.Errorf("api.example.test got the value %d times", received)
		}
		if r := p.other.Requests(); len(r) != 1 || r[0].Header.Get("Authorization") != "Bearer $MSB_API_KEY" {
			t.Errorf("other.example.test got %v", r)
		}
	})
}

// TestDocs runs the commands of the documentation that run a command; the
// names in them are served by this machine.
func TestDocs(t *testing.T) {
	p := newPlace(t, os.Geteuid())
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range append(files, "../../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
			if !strings.HasPrefix(line, "cutout boundary ") || !strings.Contains(line, " -- ") {
				continue
			}
			found++
			p.documented("sh", "-c", line)
		}
	}
	if found < 2 {
		t.Errorf("found %d commands", found)
	}
}

// documented runs what the documentation says and ends with a request, whose
// answer must be printed last. The names in it are served by this machine.
func (p *place) documented(args ...string) {
	p.t.Helper()
	shim := fmt.Sprintf("#!/bin/sh\nshift\nexec %s boundary --connect-to api.example.com:443=%s --tls-upstream-ca-cert %s/ca.pem \"$@\"\n",
		binary, p.api.Addr(), p.dir)
	own := filepath.Join(p.dir, "bin")
	os.Mkdir(own, 0o755)
	if err := os.WriteFile(filepath.Join(own, "cutout"), []byte(shim), 0o755); err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.CommandContext(p.t.Context(), args[0], args[1:]...)
	cmd.Dir = p.t.TempDir()
	cmd.Env = append(slices.Clone(p.env), "PATH="+own+":"+os.Getenv("PATH"))
	var said bytes.Buffer
	cmd.Stderr = &said
	if out, err := cmd.Output(); err != nil || !strings.HasSuffix(string(out), "ok\n") {
		p.t.Errorf("%s: %v\n%s%s", args[len(args)-1], err, out, &said)
	}
}

// TestDocsInBackground runs the commands of the documentation that put a
// boundary into the background and then use it.
func TestDocsInBackground(t *testing.T) {
	text, err := os.ReadFile("../../docs/boundary.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for part := range strings.SplitSeq(string(text), "```sh\n") {
		block, _, _ := strings.Cut(part, "```")
		if !strings.Contains(block, "until [ -e job.env ]") {
			continue
		}
		found++
		p := newPlace(t, os.Geteuid())
		block = strings.ReplaceAll(block, "--listen 8090", "--listen 0") + "kill -INT $!; wait $! || true\n"
		if !strings.Contains(block, "ip netns") {
			p.documented("sh", "-ec", block)
			continue
		}
		if os.Geteuid() != 0 {
			t.Log("left out, since making network namespaces is for root: ", block)
			continue
		}
		// With directories of its own in place of /etc and /run.
		p.documented("unshare", "-m", "sh", "-ec", "cp -a /etc . && mount --bind etc /etc && mount -t tmpfs none /run\n"+block)
	}
	if found != 2 {
		t.Errorf("found %d", found)
	}
}
