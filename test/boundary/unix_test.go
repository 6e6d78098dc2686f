//go:build linux

package boundary

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

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
	defer g.Close()
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
	conn.Close()
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("it ended with %v: %s", err, r.stderr.String())
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is still there")
	}
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
// is in use is not.
func TestUnixStale(t *testing.T) {
	p := newPlace(t, os.Geteuid())
	path, envFile := filepath.Join(p.dir, "vm.sock"), filepath.Join(p.dir, "vm.env")
	r := p.start("--unix", path, "--env-file", envFile)
	waitFile(t, r, envFile)
	all := r.processes(t)
	r.cmd.Process.Kill()
	r.cmd.Wait()
	gone(t, all)
	os.Remove(envFile)
	second := p.start("--unix", path, "--env-file", envFile)
	waitFile(t, second, envFile)
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
