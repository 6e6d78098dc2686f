//go:build linux

package interop

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const auth = "Authorization: Bearer $MSB_API_KEY"

// What curl does, in both protocols.
func TestCurl(t *testing.T) {
	need(t, "curl")
	g := newGuest(t, nil)
	big := []byte(strings.Repeat("0123456789abcdef", 1<<18)) // 4 MiB
	sum := sha256.Sum256(big)
	digest := hex.EncodeToString(sum[:])
	if err := os.WriteFile(filepath.Join(g.dir, "big"), big, 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		want string // printed
	}{
		{"get", []string{"https://good.test/echo"}, "Bearer $MSB_API_KEY"},
		{"head", []string{"--head", "https://good.test/echo/headers"}, "Bearer $MSB_API_KEY"},
		{"upload", []string{"-T", "big", "https://good.test/upload"}, digest},
		{"upload after 100 Continue", []string{"-T", "big", "-H", "Expect: 100-continue", "https://good.test/upload"}, digest},
		{"chunked upload", []string{"-T", "-", "-H", "Transfer-Encoding: chunked", "https://good.test/upload"}, digest},
		{"form", []string{"-F", "a=b", "-F", "file=@big", "https://good.test/upload"}, `"bytes":`},
		{"compressed", []string{"--compressed", "https://good.test/echo"}, "Bearer $MSB_API_KEY"},
		{"range", []string{"-r", "0-9", "https://good.test/bytes?n=100"}, ""},
		{"redirect", []string{"-i", "https://good.test/echo/location"}, "ocation: /ok?"},
		{"stream", []string{"-N", "https://good.test/stream?n=5&ms=20"}, "data: 4 Bearer $MSB_API_KEY"},
		{"two at once", []string{"https://good.test/echo", "https://good.test/echo.json"}, `"target":"/echo.json"`},
		{"trailers", []string{"https://good.test/echo/trailer"}, "see the trailer"},
	}
	for protocol, proto := range map[string]string{"--http1.1": "HTTP/1.1", "--http2": "HTTP/2.0"} {
		for _, tt := range tests {
			t.Run(strings.TrimPrefix(protocol, "--")+"/"+tt.name, func(t *testing.T) {
				g.Good.Reset()
				stdin := ""
				if tt.name == "chunked upload" {
					stdin = string(big)
				}
				out, err := g.run(stdin, "curl", append([]string{"-sS", "--fail-with-body", protocol, "-H", auth}, tt.args...)...)
				if err != nil || !strings.Contains(out, tt.want) {
					t.Fatalf("curl: %v\n%s\nwant %q", err, out, tt.want)
				}
				g.clean(t, out)
				got(t, g.Good, proto)
			})
		}
	}
}

// A refusal reaches people who use curl.
func TestCurlRefused(t *testing.T) {
	need(t, "curl")
	g := newGuest(t, nil)
	out, err := g.run("", "curl", "-sS", "--fail-with-body", "https://good.test/echo?key=$MSB_API_KEY")
	if err == nil || !strings.Contains(out, `"reason":"surface_off"`) || !strings.Contains(out, "403") {
		t.Errorf("curl: %v\n%s", err, out)
	}
	if n := len(g.Good.Requests()); n > 0 {
		t.Errorf("the server got %d requests", n)
	}
}
