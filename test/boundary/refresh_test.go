//go:build linux

package boundary

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// expiring is a --secret whose command counts how often it is run, prints it
// behind prefix, good for so many seconds, and fails while dir/broken is
// there.
func expiring(name, dir, host string, seconds int) string {
	return fmt.Sprintf(`%s=exec:cd '%s'; test ! -e broken || exit 3; echo >> count; n=$(wc -l < count); `+
		`printf '{"value":"canary-that-%%s-%%06d","expires_at":"%%s"}' expires $n $(date -u -d '+%d seconds' +%%Y-%%m-%%dT%%H:%%M:%%SZ)@%s`, name, dir, seconds, host)
}

// prefix begins the values that expire.
const prefix = "canary-that-expires"

// helper is the source helper that lives on.
func (r *running) helper(t *testing.T) int {
	t.Helper()
	for _, dir := range r.processes(t) {
		if cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline")); bytes.HasPrefix(cmdline, []byte("cutout-source-refresh\x00")) {
			var pid int
			fmt.Sscanf(filepath.Base(dir), "%d", &pid)
			return pid
		}
	}
	t.Fatal("no source helper lives on")
	return 0
}

// TestRefresh: a value that expires is read anew before it does. A source that
// fails has its last value used until that expires; then requests are refused,
// until the source is there again. Without its helper it is the same.
func TestRefresh(t *testing.T) {
	p := newPlace(t, os.Geteuid())
	dir := t.TempDir()
	r := p.start("--secret", expiring("TOKEN", dir, "other.example.test", 4), "--", "sh", "-c",
		`while :; do curl -sS -o /dev/null -w '%{http_code}\n' -H "Authorization: Bearer $TOKEN" https://other.example.test/ok; sleep 0.1; done`)
	r.waitLine("200")
	last := func() string {
		all := p.other.Requests()
		return all[len(all)-1].Header.Get("Authorization")
	}
	all, helper := r.processes(t), r.helper(t)
	deadline := time.Now().Add(time.Minute)
	for seen := map[string]bool{}; len(seen) < 3; seen[last()] = true {
		if line := <-r.lines; line != "200" || time.Now().After(deadline) {
			t.Fatalf("status %q with %d values", line, len(seen))
		}
	}
	if !strings.HasPrefix(last(), "Bearer "+prefix+"-") {
		t.Error("the server got something else")
	}
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.waitLine("403")
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	r.waitLine("200")
	if err := syscall.Kill(helper, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.waitLine("403")
	log, err := p.command("audit", "latest").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"refreshed: TOKEN, which is good until", "not refreshed: TOKEN: read it from exec: the command failed: exit status 3; its value is used until",
		"withdrawn: TOKEN has expired", "source_unavailable", "not refreshed: TOKEN: the source helper has ended",
	} {
		if !bytes.Contains(log, []byte(want)) {
			t.Errorf("not in the audit log: %s", want)
		}
	}
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	r.cmd.Wait()
	gone(t, all)
	if strings.Contains(r.stderr.String()+string(log), prefix) {
		t.Error("a value was printed")
	}
}

// TestHelperEnds: whoever is killed, the helper that lives on is gone with the
// keeper.
func TestHelperEnds(t *testing.T) {
	for _, victim := range []string{"", "cutout-keeper"} { // "" = the CLI
		t.Run(victim, func(t *testing.T) {
			p := newPlace(t, os.Geteuid())
			r := p.start("--secret", expiring("TOKEN", t.TempDir(), "other.example.test", 3600), "--", "sh", "-c", "echo up; sleep 1000")
			r.waitLine("up")
			all := r.processes(t)
			r.helper(t)
			if victim == "" {
				r.cmd.Process.Kill()
			} else {
				kill(r, victim)
			}
			r.cmd.Wait()
			gone(t, all)
		})
	}
}
