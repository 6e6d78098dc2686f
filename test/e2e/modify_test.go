package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestModify runs the documented changes of a running sandbox: a new value on
// an open connection, fewer hosts, none, and the secret again.
func TestModify(t *testing.T) {
	t.Parallel()
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	page, err := os.ReadFile("../../docs/secrets.md")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, m := range regexp.MustCompile(`(?m)^cutout (modify .*)$`).FindAllStringSubmatch(string(page), -1) {
		lines = append(lines, m[1])
	}
	if len(lines) != 4 {
		t.Fatalf("the page has %d changes", len(lines))
	}
	dir := t.TempDir()
	old, next := newValue(), newValue()
	if err := os.WriteFile(filepath.Join(dir, "new-key"), []byte(next+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.ca.WriteFile(filepath.Join(dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	api := w.upstreams["API"]
	b := start(t, []string{"API_KEY=" + old}, "run", "-m", "256m",
		"--secret", "API_KEY@api.example.com,uploads.example.com",
		"--connect-to", "api.example.com:443="+api.Addr().String(), "--connect-to", "uploads.example.com:443="+api.Addr().String(),
		"--tls-upstream-ca-cert", filepath.Join(dir, "ca.pem"),
		"--", "sh", "-c", `while read host; do curl -sS -o /dev/null -w '%{http_code}\n' -H "Authorization: Bearer $API_KEY" https://$host/ok; done`)
	ask := func(host, status string) {
		t.Helper()
		b.in.Write([]byte(host + "\n"))
		b.waitLine(status)
	}
	modify := func(line, says string) {
		t.Helper()
		cmd := exec.Command("sh", "-c", strings.Replace(line, "modify", cutout+" modify", 1))
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CUTOUT_HOME="+b.home, "API_KEY="+old)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), says) {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
		if strings.Contains(string(out), old) || strings.Contains(string(out), next) {
			t.Errorf("%s prints a value", line)
		}
	}
	last := func(value string) {
		t.Helper()
		all := api.Requests()
		if got := all[len(all)-1].Header.Get("Authorization"); got != "Bearer "+value {
			t.Errorf("the server got another value: %d requests", len(all))
		}
	}
	ask("api.example.com", "200")
	last(old)
	modify(lines[0], "replaced the value of API_KEY")
	ask("uploads.example.com", "200")
	last(next)
	modify(lines[1], "narrowed API_KEY to api.example.com")
	ask("uploads.example.com", "403")
	ask("api.example.com", "200")
	last(next)
	modify(lines[2], "would have: removed API_KEY")
	ask("api.example.com", "200")
	modify(lines[3], "removed API_KEY")
	ask("api.example.com", "403")
	if out, err := exec.Command("sh", "-c", "CUTOUT_HOME="+b.home+" "+cutout+" modify latest --hosts API_KEY=evil.example.com").CombinedOutput(); err == nil {
		t.Errorf("a removed secret was given hosts: %s", out)
	}
	b.in.Close()
	b.exit()
	for _, value := range []string{old, next} {
		checkFiles(t, newCanary(value), b.home)
	}
}
