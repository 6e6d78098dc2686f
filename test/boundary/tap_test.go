//go:build linux

package boundary

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/testnet/netns"
)

// waitFile waits until there is a file at path, and returns what it holds.
func waitFile(t *testing.T, r *running, path string) string {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		text, err := os.ReadFile(path)
		if err == nil {
			return string(text)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not appear: %s", path, r.stderr.String())
		}
	}
}

// envOf reads what --env-file has been written with.
func envOf(text string) map[string]string {
	env := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		env[name] = value
	}
	return env
}

// namespace makes a network namespace, which has nothing but a loopback.
func namespace(t *testing.T) *netns.Namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// TestTap: a network namespace of somebody else's gets the boundary, its
// addresses and its route, and what its programs need is in two files; when
// the boundary ends all of that is gone.
func TestTap(t *testing.T) {
	p := newPlace(t, 0)
	ns := namespace(t)
	envFile, caFile := filepath.Join(p.dir, "job.env"), filepath.Join(p.dir, "job.pem")
	r := p.start("--tap", "cut0", "--netns", fmt.Sprint(ns.PID), "--env-file", envFile, "--ca-file", caFile)
	env := waitFile(t, r, envFile)
	if strings.Contains(env, p.value) || !strings.Contains(env, "API_KEY=$MSB_API_KEY\n") {
		t.Errorf("the variables are %s", env)
	}
	if info, err := os.Stat(envFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	inside := func(args ...string) (string, error) {
		cmd := ns.Command(args...)
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, strings.Split(strings.TrimSpace(env), "\n")...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := inside("sh", "-c", `curl -sS -m 20 -H "Authorization: Bearer $API_KEY" https://api.example.test/ok`)
	if err != nil || out != "ok\n" {
		t.Errorf("curl: %v, %s", err, out)
	}
	if reqs := p.api.Requests(); len(reqs) != 1 || reqs[0].Header.Get("Authorization") != "Bearer "+p.value {
		t.Errorf("the server received %d requests", len(reqs))
	}
	r.cmd.Process.Signal(os.Interrupt)
	r.cmd.Wait()
	if links, _ := inside("ip", "-o", "link"); strings.Contains(links, "cut0") {
		t.Errorf("the interface is still there: %s", links)
	}
	for _, f := range []string{envFile, caFile} {
		if _, err := os.Stat(f); err == nil {
			t.Errorf("%s is still there", f)
		}
	}
}

// TestTapKilled: an interface whose boundary is killed is gone, and what
// stands in its place is not replaced.
func TestTapKilled(t *testing.T) {
	p := newPlace(t, 0)
	ns := namespace(t)
	envFile := filepath.Join(p.dir, "job.env")
	r := p.start("--tap", "cut0", "--netns", fmt.Sprint(ns.PID), "--env-file", envFile)
	waitFile(t, r, envFile)
	if _, said, code := p.run("--tap", "cut0", "--netns", fmt.Sprint(ns.PID)); code != 125 || !strings.Contains(said, "there is one of that name") {
		t.Errorf("exit status %d: %s", code, said)
	}
	all := r.processes(t)
	r.cmd.Process.Kill()
	r.cmd.Wait()
	gone(t, all)
	out, _ := ns.Run("ip", "-o", "link")
	if strings.Contains(out, "cut0") {
		t.Errorf("the interface is still there: %s", out)
	}
}
