package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// ordinaryUID is nobody's: no name, no home, no group.
const ordinaryUID = 23456

// TestOrdinaryUser runs everything without root: setup (with nothing to
// install), doctor, a sandbox that uses a secret, its audit log, an image of
// the user's own.
func TestOrdinaryUser(t *testing.T) {
	dir, err := os.MkdirTemp("", "cutout-user-") // not below the test's own, which is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	uid := os.Getuid()
	if uid == 0 {
		uid = ordinaryUID
	}
	home, bin, ca := filepath.Join(dir, "home"), filepath.Join(dir, "bin"), filepath.Join(dir, "ca.pem")
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	copyHome := fmt.Sprintf("cp -r --sparse=always %s/kernel %s/images %s/", sharedHome, sharedHome, home)
	for _, step := range []error{
		os.Mkdir(bin, 0o755), os.Mkdir(home, 0o700), w.ca.WriteFile(ca),
		exec.Command("cp", cutout, filepath.Join(filepath.Dir(cutout), "cutout-agent"), bin).Run(),
		exec.Command("sh", "-c", copyHome).Run(),
		chown(dir, uid),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	value := newValue()
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, "cutout"), args...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "CUTOUT_HOME=" + home, "API_KEY=" + value}
		cmd.Dir = dir
		if os.Getuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		}
		return cmd
	}
	run := func(args ...string) (string, string, error) {
		cmd := command(args...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		return stdout.String(), stderr.String(), err
	}

	if out, said, err := run("setup"); err != nil {
		t.Fatalf("setup: %v\n%s%s", err, out, said)
	}
	if out, said, err := run("doctor"); err != nil {
		t.Errorf("doctor: %v\n%s%s", err, out, said)
	}
	next := newValue()
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "token"), []byte(`{"value":"`+next+`","expires_at":"2040-01-02T03:04:05Z"}`), 0o600), chown(dir, uid)); err != nil {
		t.Fatal(err)
	}
	f := newFamily(t)
	b := follow(t, home, command("run", "-m", "256m", "--secret", "API_KEY@api.example.test", "--secret", "TOKEN=exec:cat token@api.example.test",
		"--connect-to", "api.example.test:443="+w.upstreams["API"].Addr().String(), "--tls-upstream-ca-cert", ca, "--",
		"sh", "-c", `id -u; curl -sS -H "Authorization: Bearer $API_KEY" https://api.example.test/ok; read end`))
	watch := func(seen map[string]sight) (stop func()) {
		return f.watching(t, seen, newCanary(value), newCanary(next))
	}
	seen := map[string]sight{}
	stop := watch(seen)
	b.waitLine("0")
	b.waitLine("ok")
	stop()
	for range 10 { // or until everybody was seen who lives for a moment
		if slices.ContainsFunc(processNames, func(name string) bool { return seen[name].pid == 0 }) {
			more := map[string]sight{}
			stop := watch(more)
			if out, said, err := run("run", "-m", "256m", "--secret", "API_KEY@api.example.test", "--secret", "TOKEN=exec:cat token@api.example.test", "--", "true"); err != nil {
				t.Fatalf("run: %v\n%s%s", err, out, said)
			}
			stop()
			maps.Copy(more, seen)
			seen = more
		}
	}
	checkSights(t, seen)
	keeperPID, machine := b.pids()
	checkConfined(t, "the keeper", keeperPID)
	checkConfined(t, "the machine", machine)
	checkUndumpable(t, "the CLI", b.cmd.Process.Pid, uid)
	checkUndumpable(t, "the keeper", keeperPID, uid)
	io.WriteString(b.in, "\n")
	if code := b.exit(); code != 0 {
		t.Fatalf("run: exit status %d\n%s", code, b.stderr.String())
	}
	said := b.stderr.String()
	if reqs := w.upstreams["API"].Requests(); len(reqs) != 1 || reqs[0].Header.Get("Authorization") != "Bearer "+value {
		t.Errorf("the server received %d requests", len(reqs))
	}
	_, rest, _ := strings.Cut(said, "audit log ")
	id, _, _ := strings.Cut(rest, ":")
	if out, said, err := run("audit", id); err != nil || !strings.Contains(out, "substituted API_KEY header GET api.example.test/ok") {
		t.Errorf("audit: %v\n%s%s", err, out, said)
	}
	for _, args := range [][]string{{"image", "import", "mine", bin}, {"image", "ls"}, {"image", "rm", "mine"}} {
		if out, said, err := run(args...); err != nil || args[1] == "ls" && !strings.Contains(out, "mine") {
			t.Errorf("%v: %v\n%s%s", args, err, out, said)
		}
	}
	if strings.Contains(said, "weak") {
		t.Errorf("an ordinary user got less of a cage: %s", said)
	}
	if err := checkClean(home); err != nil {
		t.Error(err)
	}
}

func chown(dir string, uid int) error {
	if os.Getuid() != 0 {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, uid, uid))
	})
}
