//go:build linux

package boundary

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestListen: a program that takes a proxy gets through, by CONNECT and by
// SOCKS5, under the gates; nobody without the credential does; the name that
// was asked for stands for the pin and must be the server's name, and an
// address makes none.
func TestListen(t *testing.T) {
	p := newPlace(t, os.Geteuid())
	envFile, caFile := filepath.Join(p.dir, "job.env"), filepath.Join(p.dir, "job.pem")
	// So that addresses can be asked for at all.
	r := p.start("--listen", "127.0.0.1:0", "--env-file", envFile, "--ca-file", caFile, "--net", "all")
	text := strings.TrimSpace(waitFile(t, r, envFile))
	lines, env := strings.Split(text, "\n"), envOf(text)
	curl := func(args ...string) string {
		cmd := exec.Command("curl", append([]string{"-sS", "-m", "20", "-H", "Authorization: Bearer " + env["API_KEY"]}, args...)...)
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, lines...)
		out, _ := cmd.CombinedOutput()
		return strings.TrimSpace(string(out))
	}
	web, socks := env["HTTPS_PROXY"], env["ALL_PROXY"]
	credential := web[len("http://"):strings.Index(web, "@")]
	api := p.api.Addr().String() // of this machine, which is what the name stands for

	for name, got := range map[string]string{
		"by the variables": curl("https://api.example.test/ok"),
		"by CONNECT":       curl("-x", web, "https://api.example.test/ok"),
		"by SOCKS":         curl("-x", socks, "https://api.example.test/ok"),
	} {
		if got != "ok" {
			t.Errorf("%s: %s", name, got)
		}
	}
	if n := p.received(); n != 3 {
		t.Errorf("api.example.test got the value %d times", n)
	}
	for name, c := range map[string]struct{ want, got string }{
		"no credential, CONNECT": {"407", curl("-x", strings.Replace(web, credential+"@", "", 1), "https://api.example.test/ok")},
		"another, CONNECT":       {"407", curl("-x", strings.Replace(web, credential, "cutout:guess", 1), "https://api.example.test/ok")},
		"no credential, SOCKS":   {"curl:", curl("-x", strings.Replace(socks, credential+"@", "", 1), "https://api.example.test/ok")},
		"another, SOCKS":         {"curl:", curl("-x", strings.Replace(socks, credential, "cutout:guess", 1), "https://api.example.test/ok")},
		"a wrong Host":           {"authority_mismatch", curl("-H", "Host: other.example.test", "https://api.example.test/ok")},
		"an address":             {"not_pinned", curl("--connect-to", "api.example.test:443:"+api, "https://api.example.test/ok")},
		"another name":           {"not_pinned", curl("--connect-to", "api.example.test:443:other.example.test:443", "https://api.example.test/ok")},
		"another server name":    {"curl:", curl("-k", "--connect-to", "www.example.test:443:other.example.test:443", "https://www.example.test/ok")},
		"no tunnel":              {"405", curl("-x", web, "-o", "/dev/null", "-w", "%{http_code}", "http://api.example.test/ok")},
	} {
		if !strings.Contains(c.got, c.want) {
			t.Errorf("%s: got %q, want %s", name, c.got, c.want)
		}
	}
	if n := p.received(); n != 3 {
		t.Errorf("api.example.test got the value %d times", n)
	}
	if reqs := p.other.Requests(); len(reqs) != 0 {
		t.Errorf("other.example.test got %d requests", len(reqs))
	}
	if strings.Contains(strings.Join(lines, "\n"), p.value) {
		t.Error("the value was written")
	}
}

// received counts the requests with the value at api.example.test.
func (p *place) received() int {
	n := 0
	for _, r := range p.api.Requests() {
		if r.Header.Get("Authorization") == "Bearer "+p.value {
			n++
		}
	}
	return n
}
