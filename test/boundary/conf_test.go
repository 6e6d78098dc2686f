//go:build linux

package boundary

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestConf: a file says what flags say, and the command; a flag goes before
// it. What only a machine has is refused with its place.
func TestConf(t *testing.T) {
	p := newPlace(t, os.Geteuid())
	run := func(text string, args ...string) (out, said string, code int) {
		conf := filepath.Join(p.dir, "cutout.yaml")
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := p.command(append([]string{"boundary", "--conf", conf}, args...)...)
		var b, e strings.Builder
		cmd.Stdout, cmd.Stderr = &b, &e
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return b.String(), e.String(), cmd.ProcessState.ExitCode()
	}
	whole := fmt.Sprintf(`
secrets:
  API_KEY: {hosts: [api.example.test], scope: [GET /ok]}
command: [sh, -c, 'pwd; for path in ok other; do curl -sS -o /dev/null -w "%%{http_code}\n" -H "Authorization: Bearer $API_KEY" https://api.example.test/$path; done']
workdir: /tmp
connect-to: api.example.test:443=%s
tls-upstream-ca-cert: [ca.pem]
quiet: true
`, p.api.Addr())
	if out, said, code := run(whole); out != "/tmp\n200\n403\n" || said != "" || code != 0 {
		t.Errorf("exit status %d, %q, %q", code, out, said)
	}
	if r := p.api.Requests(); len(r) != 1 || r[0].Header.Get("Authorization") != "Bearer "+p.value {
		t.Errorf("api.example.test got %v", r)
	}
	if out, said, code := run(whole, "-w", "/usr", "--", "pwd"); out != "/usr\n" || code != 0 {
		t.Errorf("with flags: exit status %d, %q, %q", code, out, said)
	}
	// The command is another form of workload than a socket.
	if _, said, code := run(whole+"timeout: 1s\ntty: true\n", "--unix", "vm.sock"); code != 124 {
		t.Errorf("with --unix: exit status %d, %q", code, said)
	}
	for _, line := range []string{"image: default", "env: {LANG: C}", "memory: 1g", "cpus: 2", `volume: [".:/src:ro"]`, `copy: [".:/src"]`, "no-snapshot: true", "weak-cage: false"} {
		key, _, _ := strings.Cut(line, ":")
		if out, said, code := run("command: ['true']\n" + line + "\n"); code != 125 || out != "" || !strings.Contains(said, "cutout.yaml:2:") || !strings.Contains(said, key+": there is no machine here") {
			t.Errorf("%s: exit status %d, %q, %q", line, code, out, said)
		}
	}
	// What a stranger may have written gives nothing to programs of this
	// machine: no command, and no variable or directory by which another would
	// run what he likes.
	for _, tt := range []struct {
		text string
		args []string
	}{
		{"command: [touch, ran]\n", nil},
		{"user: '1'\n", []string{"--", "true"}},
		{"workdir: /tmp\n", []string{"--", "./agent"}},
		{"secrets: {BASH_ENV: {source: env:API_KEY, hosts: [api.example.test], placeholder: " + p.dir + "/touch}}\n", []string{"--", "bash", "-c", "true"}},
		{"secrets: {PATH: {source: env:API_KEY, hosts: [api.example.test], placeholder: " + p.dir + "}}\n", []string{"--unix", "vm.sock", "--env-file", "ran"}},
	} {
		conf := filepath.Join(p.dir, "strange.yaml")
		if err := errors.Join(os.WriteFile(conf, []byte(tt.text), 0o644), os.Chmod(conf, 0o646),
			os.WriteFile(filepath.Join(p.dir, "touch"), []byte("touch "+p.dir+"/ran\n"), 0o755)); err != nil {
			t.Fatal(err)
		}
		cmd := p.command(append([]string{"boundary", "--conf", conf}, tt.args...)...)
		said, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 125 || !strings.Contains(string(said), "not yours alone to write") {
			t.Errorf("a stranger's %q with %q: %v, %s", tt.text, tt.args, err, said)
		}
		if _, err := os.Stat(filepath.Join(p.dir, "ran")); err == nil {
			t.Errorf("a stranger's %q with %q was run", tt.text, tt.args)
		}
	}
	if _, said, code := run("memory: " + p.value + "\nsecrets: {API_KEY: {hosts: [api.example.test]}}\n"); code != 125 || strings.Contains(said, p.value) {
		t.Errorf("a value in the place of another text: exit status %d, %q", code, said)
	}
}
