//go:build linux

package interop

import (
	"bufio"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/testnet/boundary"
)

// Libraries, each with a program of its own that ends with "done".
func TestLibraries(t *testing.T) {
	for _, tt := range []struct {
		name, program, script string
		module                string // of Debian's Python, or of npm
		proto                 string
		want                  string // printed too
	}{
		{"urllib", python, "testdata/with_urllib.py", "", "HTTP/1.1", "Bearer $MSB_API_KEY"},
		{"requests", python, "testdata/with_requests.py", "requests", "HTTP/1.1", "403 surface_off"},
		{"httpx", python, "testdata/with_httpx.py", "httpx", "HTTP/2.0", "Bearer $MSB_API_KEY"},
		{"fetch", "node", "node/fetch.mjs", "", "HTTP/1.1", "403 surface_off"},
		{"node-http2", "node", "node/http2.mjs", "", "HTTP/2.0", "see the trailer"},
		{"undici", "node", "node/undici.mjs", "undici", "HTTP/2.0", "Bearer $MSB_API_KEY"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			need(t, tt.program)
			if tt.module != "" {
				needModule(t, tt.program, tt.module)
			}
			g := newGuest(t, nil)
			out, err := g.run("", tt.program, script(t, tt.script))
			if err != nil || !strings.Contains(out, "done\n") || !strings.Contains(out, tt.want) {
				t.Fatalf("%v\n%s", err, out)
			}
			g.clean(t, out)
			got(t, g.Good, tt.proto)
		})
	}
}

func script(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// wget, which is built on GnuTLS and looks for roots in the system's bundle.
func TestWget(t *testing.T) {
	need(t, "wget")
	g := newGuest(t, nil)
	out, err := g.run("", "wget", "-q", "-O", "-", "--header", auth, "https://good.test/echo")
	if err != nil || !strings.Contains(out, "Bearer $MSB_API_KEY") {
		t.Fatalf("%v\n%s", err, out)
	}
	g.clean(t, out)
	got(t, g.Good, "HTTP/1.1")
}

// openssl sees a certificate for the name and chooses every version that is
// allowed, and none other.
func TestOpenSSL(t *testing.T) {
	need(t, "openssl")
	g := newGuest(t, nil)
	request := "GET /echo HTTP/1.1\r\nHost: good.test\r\nConnection: close\r\n" + auth + "\r\n\r\n"
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		out, err := g.run(request, "openssl", "s_client", "-connect", "good.test:443", "-servername", "good.test", version, "-CAfile", bundle, "-verify_return_error", "-ign_eof")
		if err != nil || !strings.Contains(out, "Verify return code: 0 (ok)") || !strings.Contains(out, "Bearer $MSB_API_KEY") {
			t.Errorf("%s: %v\n%s", version, err, out)
		}
		g.clean(t, out)
		got(t, g.Good, "HTTP/1.1")
	}
	for _, old := range []string{"-tls1", "-tls1_1"} {
		out, err := g.run(request, "openssl", "s_client", "-connect", "good.test:443", "-servername", "good.test", old, "-cipher", "ALL:@SECLEVEL=0", "-ign_eof")
		if err == nil || strings.Contains(out, "HTTP/1.1 200") {
			t.Errorf("%s: %v\n%s", old, err, out)
		}
	}
}

// A WebSocket between the ws library and itself: the server offers
// compression, which is not taken up.
func TestWebSocket(t *testing.T) {
	need(t, "node")
	needModule(t, "node", "ws")
	g := newGuest(t, nil)
	cert, key := certificate(t, g.CA, "good.test")
	server := exec.Command("node", "node/ws-server.mjs", cert, key)
	server.Stderr = os.Stderr
	stdout, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Process.Kill(); server.Wait() })
	lines := bufio.NewScanner(stdout)
	lines.Scan()
	g.Routes.Set(netip.AddrPortFrom(boundary.GoodAddr, 443), netip.MustParseAddrPort("127.0.0.1:"+lines.Text()))

	out, err := g.run("", "node", script(t, "node/ws.mjs"))
	if err != nil || out != "Bearer "+boundary.Placeholder+" done\n" {
		t.Errorf("%v\n%s", err, out)
	}
	if lines.Scan(); lines.Text() != "Bearer "+boundary.Value {
		t.Errorf("the server got %q", lines.Text())
	}
}
