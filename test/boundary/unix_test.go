//go:build linux

package boundary

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/conntrack"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
)

// TestUnix: whoever connects first to the socket is plugged in, if it is the
// same user, under the same gates; nobody else is, and when it goes the
// boundary ends.
func TestUnix(t *testing.T) {
	p := newPlace(t, os.Geteuid())
	path, envFile, caFile := filepath.Join(p.dir, "vm.sock"), filepath.Join(p.dir, "vm.env"), filepath.Join(p.dir, "vm.pem")
	r := p.start("--unix", path, "--env-file", envFile, "--ca-file", caFile)
	env := envOf(waitFile(t, r, envFile))
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chmod(path, 0o777); err != nil { // and still
			t.Fatal(err)
		}
		if read := connectAs(t, ordinaryUID, path); read != "" {
			t.Errorf("another user was plugged in: %s", read)
		}
	}
	g := plugIn(t, path, env)
	addrs, err := g.Resolve(t.Context(), "api.example.test")
	if err != nil {
		t.Fatal(err)
	}
	c, err := g.Dial(t.Context(), "tcp", netip.AddrPortFrom(addrs[0], 443))
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	secure := tls.Client(c, &tls.Config{ServerName: "api.example.test", RootCAs: roots})
	secure.SetDeadline(time.Now().Add(10 * time.Second))
	req, _ := http.NewRequest("GET", "https://api.example.test/ok", nil)
	req.Header.Set("Authorization", "Bearer "+env["API_KEY"])
	req.Close = true
	if err := req.Write(secure); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(secure); err != nil || !strings.HasSuffix(string(answer), "ok\n") {
		t.Errorf("the guest reads %q, %v", answer, err)
	}
	if reqs := p.api.Requests(); len(reqs) != 1 || reqs[0].Header.Get("Authorization") != "Bearer "+p.value {
		t.Errorf("the server received %d requests", len(reqs))
	}
	if second, err := net.Dial("unix", path); err == nil {
		second.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := second.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a second peer was plugged in: %v", err)
		}
		second.Close()
	}
	g.Close()
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("it ended with %v: %s", err, r.stderr.String())
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is still there")
	}
}

// plugIn is a guest at the socket of --unix.
func plugIn(t *testing.T, path string, env map[string]string) *netstacktest.Guest {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	g, err := netstacktest.New(conn, netstack.Config{
		Guest4: netip.MustParsePrefix(env["CUTOUT_ADDRESS4"]), Gateway4: netip.MustParseAddr(env["CUTOUT_GATEWAY4"]),
		Guest6: netip.MustParsePrefix(env["CUTOUT_ADDRESS6"]), Gateway6: netip.MustParseAddr(env["CUTOUT_GATEWAY6"]),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// connectAs says how a connection of another user's fares: "" if it is
// closed.
func connectAs(t *testing.T, uid uint32, path string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(filepath.Dir(path), "workload"), "--connect", path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// TestUnixStale: a socket that a killed boundary left is taken over, one that
// is in use is not, whoever left one of the name before.
func TestUnixStale(t *testing.T) {
	p := newPlace(t, os.Geteuid())
	path, envFile := filepath.Join(p.dir, "vm.sock"), filepath.Join(p.dir, "vm.env")
	killed(t, p.start("--unix", path, "--env-file", envFile), envFile)
	q := *p // which does not know of the one before
	q.env = append(slices.Clone(p.env), "CUTOUT_HOME="+filepath.Join(p.dir, "other"))
	second := q.start("--unix", path, "--env-file", envFile+"2")
	waitFile(t, second, envFile+"2")
	if _, said, code := p.run("--unix", path); code != 125 || !strings.Contains(said, "is in use") {
		t.Errorf("exit status %d: %s", code, said)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the boundary that it is in use by was disturbed: %v", err)
	} else {
		c.Close()
	}
	file := filepath.Join(p.dir, "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, code := p.run("--unix", file); code != 125 {
		t.Errorf("exit status %d", code)
	}
	if text, _ := os.ReadFile(file); string(text) != "mine" {
		t.Error("a file was replaced by the socket")
	}
}

// killed waits until a boundary has written file, and kills its CLI.
func killed(t *testing.T, r *running, file string) {
	t.Helper()
	waitFile(t, r, file)
	all := r.processes(t)
	r.cmd.Process.Kill()
	r.cmd.Wait()
	gone(t, all)
}

// TestLeftBehind: what a killed boundary could not remove, the next command
// does, but nothing that somebody else has put in its place.
func TestLeftBehind(t *testing.T) {
	everyone(t, func(t *testing.T, p *place) {
		files := []string{filepath.Join(p.dir, "vm.env"), filepath.Join(p.dir, "vm.pem"), filepath.Join(p.dir, "vm.sock")}
		killed(t, p.start("--env-file", files[0], "--ca-file", files[1], "--unix", files[2]), files[0])
		for _, f := range files {
			if _, err := os.Lstat(f); err != nil {
				t.Errorf("there is nothing to be removed: %v", err)
			}
		}
		os.Remove(files[1])
		if err := os.WriteFile(files[1], []byte("mine"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, said, code := p.run("--", "true"); code != 0 {
			t.Fatalf("exit status %d: %s", code, said)
		}
		for _, f := range files {
			if _, err := os.Lstat(f); (err == nil) != (f == files[1]) {
				t.Errorf("%s: %v", f, err)
			}
		}
	})
}

// TestPublished: a port of a workload's is reached on this machine, through a
// socket and through an interface; cutout net tells of it and of connections.
func TestPublished(t *testing.T) {
	p := newPlace(t, os.Geteuid())
	path, envFile := filepath.Join(p.dir, "vm.sock"), filepath.Join(p.dir, "vm.env")
	r := p.start("-p", "0:80", "--unix", path, "--env-file", envFile)
	g := plugIn(t, path, envOf(waitFile(t, r, envFile)))
	l, err := g.Listen(80)
	if err != nil {
		t.Fatal(err)
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "served") }))
	state := netOf(t, p)
	if text, err := get(state); err != nil || text != "served" {
		t.Errorf("%q, %v", text, err)
	}
	addrs, err := g.Resolve(t.Context(), "api.example.test")
	if err != nil {
		t.Fatal(err)
	}
	c, err := g.Dial(t.Context(), "tcp", netip.AddrPortFrom(addrs[0], 443))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if flows := netOf(t, p).Flows; !slices.ContainsFunc(flows, func(f conntrack.Flow) bool { return f.Dst.Port() == 443 }) {
		t.Errorf("cutout net shows %+v", flows)
	}
	r.cmd.Process.Signal(os.Interrupt)
	r.cmd.Wait()
	if id := regexp.MustCompile(`this is boundary ([0-9a-f]{12}): cutout net`).FindStringSubmatch(r.stderr.String()); id == nil {
		t.Errorf("it does not tell its name: %s", r.stderr.String())
	}

	command := p.start("-p", "0:8000", "--", "sh", "-c", "echo ready; exec /usr/bin/python3 -m http.server 8000")
	command.waitLine("ready")
	state = netOf(t, p)
	var text string
	for range 100 { // until it listens
		if text, err = get(state); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil || !strings.Contains(text, "Directory listing") {
		t.Errorf("%q, %v", text, err)
	}
}

// netOf is what cutout net says of the last boundary.
func netOf(t *testing.T, p *place) (n keeper.NetState) {
	t.Helper()
	out, err := p.command("net", "--json", "latest").Output()
	if err == nil {
		err = json.Unmarshal(out, &n)
	}
	if err != nil {
		t.Fatalf("cutout net: %v: %s", err, out)
	}
	return n
}

// get asks at the one port that is published.
func get(n keeper.NetState) (string, error) {
	if len(n.Published) != 1 {
		return "", fmt.Errorf("published are %v", n.Published)
	}
	resp, err := http.Get("http://" + n.Published[0].Listen.String())
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}
