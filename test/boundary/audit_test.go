//go:build linux

package boundary

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// latestLog is the audit log of the only sandbox of a place.
func latestLog(t *testing.T, p *place) string {
	t.Helper()
	logs, err := filepath.Glob(p.home + "/sandboxes/*/audit.jsonl")
	if err != nil || len(logs) != 1 {
		t.Fatalf("audit logs: %v, %v", logs, err)
	}
	return logs[0]
}

// TestAuditProves: the head that is printed in the end proves the log, and a
// log that was written anew has another.
func TestAuditProves(t *testing.T) {
	p := newPlace(t, os.Geteuid())
	_, stderr, code := p.run("--", "sh", "-c", `curl -sS -H "Authorization: Bearer $API_KEY" https://api.example.test/ok`)
	m := regexp.MustCompile(`cutout: audit log [0-9a-f]{12}: (\d+) lines, head ([0-9a-f]{64})\n`).FindStringSubmatch(stderr)
	if code != 0 || m == nil {
		t.Fatalf("exit status %d: %s", code, stderr)
	}
	verify := func() (string, error) {
		out, err := p.command("audit", "verify", "--head", m[2]).CombinedOutput()
		return string(out), err
	}
	if out, err := verify(); err != nil || !strings.HasPrefix(out, m[1]+" lines, the chain holds\nhead "+m[2]) {
		t.Errorf("%v: %s", err, out)
	}
	log := latestLog(t, p)
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log, data[:strings.Index(string(data), "\n")+1], 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := verify(); err == nil || !strings.Contains(out, "the head of the audit log is another") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := p.command("audit", "verify").CombinedOutput(); err != nil || !strings.Contains(string(out), "the end is missing") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestFullDisk: on a full disk no sandbox starts, and one that runs has no
// value written any more, unless it was told to.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	const loop = `while :; do curl -sS -o /dev/null -w '%{http_code}\n' -H "Authorization: Bearer $API_KEY" https://api.example.test/ok; sleep 0.1; done`
	for mode, status := range map[string]string{"strict": "503", "best-effort": "200"} {
		t.Run(mode, func(t *testing.T) {
			p := newPlace(t, 0)
			if err := unix.Mount("tmpfs", p.home, "tmpfs", 0, "size=256k,mode=700"); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Unmount(p.home, unix.MNT_DETACH) })
			r := p.start("--audit", mode, "--", "sh", "-c", loop)
			r.waitLine("200")
			filler, err := os.Create(filepath.Join(p.home, "filler"))
			if err != nil {
				t.Fatal(err)
			}
			defer filler.Close()
			for size := 64 << 10; size > 0; { // to the last byte
				if _, err := filler.Write(make([]byte, size)); err != nil {
					size /= 2
				}
			}
			info, err := os.Stat(latestLog(t, p))
			if err != nil {
				t.Fatal(err)
			}
			for last := info.Size(); ; { // what is left of its last page
				r.waitLine(status)
				if info, err = os.Stat(latestLog(t, p)); err != nil {
					t.Fatal(err)
				}
				if info.Size() == last {
					break
				}
				last = info.Size()
			}
			r.waitLine(status)
			if out, err := p.command("audit", "verify").CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			all := r.processes(t)
			_, stderr, code := p.run("--", "true")
			if code != 125 || !strings.Contains(stderr, "no space left on device") || !strings.Contains(stderr, "hint: free some space") {
				t.Errorf("exit status %d: %s", code, stderr)
			}
			if err := os.Remove(filler.Name()); err != nil {
				t.Fatal(err)
			}
			filler.Close()
			for range 10 { // what was written of a line that did not fit is not in the way
				r.waitLine(status)
			}
			if out, err := p.command("audit", "verify").CombinedOutput(); err != nil {
				t.Errorf("with space again: %v: %s", err, out)
			}
			r.cmd.Process.Signal(os.Interrupt)
			r.cmd.Wait()
			gone(t, all)
			if _, stderr, code := p.run("--", "true"); code != 0 {
				t.Errorf("with space again: exit status %d: %s", code, stderr)
			}
			if left, _ := filepath.Glob(p.home + "/run/*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestLifecycle: what a boundary goes through is on record, in order: its
// beginning, a change, its end and why.
func TestLifecycle(t *testing.T) {
	p := newPlace(t, os.Geteuid())
	r := p.start("--", "sh", "-c", "echo up; exec sleep 60")
	r.waitLine("up")
	if out, err := p.command("modify", "latest", "--secret-rm", "API_KEY").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	r.cmd.Process.Signal(os.Interrupt)
	r.cmd.Wait()
	out, err := p.command("audit", "latest", "--event", "lifecycle").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	rest := string(out)
	for _, step := range []string{"- starting ", "- started boundary for tap", "- ready", "- changed: ", "- ending: the client has gone", "- ended"} {
		_, after, ok := strings.Cut(rest, step)
		if !ok {
			t.Errorf("%q is not on record, or not in its place: %s", step, out)
		}
		rest = after
	}
}
