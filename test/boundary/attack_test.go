//go:build linux

package boundary

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestHostileCommand is ATTACKS E11: a command that looks for the value in
// every process, file and socket that it can see finds none, and gains
// nothing.
func TestHostileCommand(t *testing.T) {
	everyone(t, func(t *testing.T, p *place) {
		source := filepath.Join(p.dir, "source")
		roots := filepath.Join(p.dir, "roots")
		for path, uid := range map[string]int{source: p.uid, roots: 0} {
			if os.WriteFile(path, []byte(p.value), 0o600) != nil || os.Chown(path, uid, uid) != nil && os.Geteuid() == 0 {
				t.Fatal("write a source")
			}
		}
		agent := listen(t)
		// Another boundary of the same user, whose home is not hidden here.
		others := filepath.Join(p.dir, "other-home")
		if os.Mkdir(others, 0o700) != nil || os.Chown(others, p.uid, p.uid) != nil && os.Geteuid() == 0 {
			t.Fatal("make a home")
		}
		q := *p
		q.env = append(slices.Clone(p.env), "CUTOUT_HOME="+others)
		other := q.start("--", "sh", "-c", "echo ready; exec sleep 1000")
		other.waitLine("ready")

		out, said, code := p.run("--secret", "FILED=file:"+source+"@other.example.test", "--", "./workload", p.home, source, roots)
		var l loot
		if err := json.Unmarshal([]byte(out), &l); err != nil || code != 0 {
			t.Fatalf("exit status %d, %v\n%s%s", code, err, out, said)
		}
		if d := slices.DeleteFunc(l.Processes, func(s string) bool { return s == "cutout-init" || s == "exe" }); len(d) > 0 {
			t.Errorf("it sees the processes %q", d)
		}
		for what, list := range map[string][]string{
			"the value in": l.Values, "to trace": l.Traced, "the sockets": l.Sockets, "the files": l.Seen, "gained": l.Gained,
		} {
			if len(list) > 0 {
				t.Errorf("it found %s %q", what, list)
			}
		}
		if agent() > 0 {
			t.Error("it reached the socket of an agent")
		}
	})
}

// listen is another program's socket in /tmp, where agents have theirs. The
// returned function says how many connected.
func listen(t *testing.T) func() int {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "agent-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for _, at := range []string{dir, path} {
		if err := os.Chmod(at, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	reached := make(chan struct{}, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			reached <- struct{}{}
			c.Close()
		}
	}()
	return func() int { return len(reached) }
}

// TestHoldsNothing: no process that cutout boundary starts has the value in
// its arguments or its environment.
func TestHoldsNothing(t *testing.T) {
	everyone(t, func(t *testing.T, p *place) {
		b := p.start("--", "sh", "-c", "echo ready; exec sleep 1000")
		b.waitLine("ready")
		all := b.processes(t)
		if len(all) < 4 {
			t.Errorf("found the processes %q", all)
		}
		for _, dir := range all {
			for _, name := range []string{"cmdline", "environ"} {
				text, _ := os.ReadFile(filepath.Join(dir, name))
				cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
				if strings.Contains(string(text), p.value) && !strings.Contains(string(cmdline), "boundary") { // the user's own
					t.Errorf("%s of %q has the value", name, cmdline)
				}
			}
		}
	})
}

// TestVariables: of the caller's variables the command gets those that hold
// no value; where one does that is no secret's, nothing starts.
func TestVariables(t *testing.T) {
	p := newPlace(t, os.Geteuid())
	p.env = append(p.env, "HTTPS_PROXY=http://proxy.example.test", "OTHER=kept")
	out, said, code := p.run("--secret", "TOKEN=env:API_KEY@other.example.test", "--placeholder", "TOKEN=$OTHER_TOKEN", "--",
		"sh", "-c", `echo "$OTHER ${HTTPS_PROXY-none}"; echo "$TOKEN"`)
	if code != 0 || out != "kept none\n$OTHER_TOKEN\n" || !strings.Contains(said, "HTTPS_PROXY: not for the command") {
		t.Errorf("exit status %d: %s%s", code, out, said)
	}
	p.env = append(p.env, "AUTH=Bearer "+p.value)
	if out, said, code := p.run("--", "true"); code != 125 || !strings.Contains(said, "the value of API_KEY stands in your variable AUTH") || strings.Contains(out+said, p.value) {
		t.Errorf("exit status %d: %s%s", code, out, said)
	}
}
