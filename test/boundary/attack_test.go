//go:build linux

package boundary

import (
	"encoding/json"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cutoutdev/cutout/internal/policy"
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
		agent, at := listen(t)
		// Another boundary of the same user, whose home is not hidden here.
		others := filepath.Join(p.dir, "other-home")
		if os.Mkdir(others, 0o700) != nil || os.Chown(others, p.uid, p.uid) != nil && os.Geteuid() == 0 {
			t.Fatal("make a home")
		}
		q := *p
		q.env = append(slices.Clone(p.env), "CUTOUT_HOME="+others)
		other := q.start("--", "sh", "-c", "echo ready; exec sleep 1000")
		other.waitLine("ready")

		out, said, code := p.run(slices.Concat([]string{"--secret", "FILED=file:" + source + "@other.example.test", "--", "./workload", p.home, source, roots}, at)...)
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

// listen are another program's sockets: one in /tmp, where agents have theirs,
// an abstract one, and a port of the loopback. Reached says how many have
// connected, at where they are, from within a boundary too.
func listen(t *testing.T) (reached func() int, at []string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "agent-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path, abstract := filepath.Join(dir, "agent.sock"), "@"+filepath.Base(dir)
	connected := make(chan struct{}, 100)
	for addr, network := range map[string]string{path: "unix", abstract: "unix", "127.0.0.1:0": "tcp"} {
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				connected <- struct{}{}
				c.Close()
			}
		}()
		at = append(at, network+":"+l.Addr().String())
		if network == "tcp" {
			_, port, _ := net.SplitHostPort(l.Addr().String())
			at = append(at, "tcp:"+net.JoinHostPort(string(policy.HostName), port))
		}
	}
	for _, open := range []string{dir, path} {
		if err := os.Chmod(open, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	return func() int { return len(connected) }, at
}

// stranger is another ordinary user of the machine.
const stranger = ordinaryUID + 1

// TestStranger is E11 for another user of the machine: boundaries of all kinds
// show it no value and no credential, and let nobody in who has none.
func TestStranger(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	everyone(t, func(t *testing.T, p *place) {
		env, socket := filepath.Join(p.dir, "job.env"), filepath.Join(p.dir, "vm.sock")
		command := p.start("--", "sh", "-c", "echo ready; exec sleep 1000")
		command.waitLine("ready")
		proxy := p.start("--listen", "127.0.0.1:0", "--env-file", env)
		at, err := url.Parse(envOf(waitFile(t, proxy, env))["HTTPS_PROXY"])
		if err != nil {
			t.Fatal(err)
		}
		machine := p.start("--unix", socket, "--env-file", env+"2")
		waitFile(t, machine, env+"2")
		if err := os.Chmod(socket, 0o777); err != nil { // and still
			t.Fatal(err)
		}
		if text := connectAs(t, stranger, socket); text != "" {
			t.Errorf("it was plugged in: %s", text)
		}
		args := []string{env, env + "2", p.home, "tcp:" + at.Host}
		for _, r := range []*running{command, proxy, machine} {
			for _, dir := range r.processes(t) {
				args = append(args, "proc:"+dir)
			}
		}
		controls, _ := filepath.Glob(p.home + "/run/*/keeper.sock")
		if len(controls) != 3 {
			t.Errorf("found the control sockets %q", controls)
		}
		for _, c := range controls {
			args = append(args, "unix:"+c)
		}

		cmd := exec.Command("./workload", append([]string{"--named"}, args...)...)
		cmd.Dir, cmd.Env = p.dir, []string{"PATH=" + os.Getenv("PATH")}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger}}
		out, err := cmd.Output()
		var l loot
		if jerr := json.Unmarshal(out, &l); err != nil || jerr != nil {
			t.Fatalf("%v, %v: %s", err, jerr, out)
		}
		for what, list := range map[string][]string{"the value in": l.Values, "to trace": l.Traced, "the files": l.Seen} {
			if len(list) > 0 {
				t.Errorf("it found %s %q", what, list)
			}
		}
		asked := false
		for _, text := range l.Sockets {
			switch {
			case strings.HasPrefix(text, at.Host+": 407 "):
				asked = true
			default:
				t.Errorf("it was answered by %s", text)
			}
		}
		if !asked {
			t.Errorf("--listen did not ask for a credential: %q", l.Sockets)
		}
	})
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
