package attack

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/cutoutdev/cutout/internal/policy"
)

// C: getting V back out.
var sectionC = append([]probe{
	{
		entry: "C2", name: "gzip", run: echoed("/"), want: substituted,
		change: func(b *boundary) {
			b.Answer(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				z := gzip.NewWriter(w)
				io.WriteString(z, r.Header.Get("Authorization"))
				z.Close()
			})
		},
	},
	{
		entry: "C2", name: "one byte at a time", run: echoed("/"), want: substituted,
		change: func(b *boundary) {
			b.Answer(func(w http.ResponseWriter, r *http.Request) {
				for _, c := range []byte(r.Header.Get("Authorization")) {
					w.Write([]byte{c})
					w.(http.Flusher).Flush()
				}
			})
		},
	},
	{
		entry: "C4", name: "a slice is asked for wider", run: ask("GET", "/echo", "good.test", "Authorization", bearer, "Range", "bytes=0-99"), want: substituted,
		check: func(b *boundary) error {
			if strings.Contains(b.Received(), "bytes=0-99\r\n") {
				return errors.New("the upstream got the guest's Range")
			}
			return nil
		},
	},
	{
		entry: "C5", name: "a placeholder in a body, surface off", run: post(`{"quoted":"`+P+`"}`, "Content-Type", "application/json"),
		want: want{status: []int{200}, carried: true}, check: carriedOnRecord,
	},
	{
		entry: "C2", name: "gzip is opened, whatever is in it", run: echoed("/"), want: substituted,
		change: func(b *boundary) {
			b.Answer(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				io.WriteString(w, zipped(r.Header.Get("Authorization")))
			})
		},
		check: func(b *boundary) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			if !strings.Contains(b.read.String(), P) {
				return fmt.Errorf("the guest reads no placeholder: %q", b.read.String())
			}
			return nil
		},
	},
	{
		entry: "C2", name: "an echo in a coding nobody knows", run: echoed("/"),
		want: want{status: []int{502}, reason: policy.Unscannable, value: true},
		change: func(b *boundary) {
			b.Answer(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Encoding", "x-own")
				io.WriteString(w, r.Header.Get("Authorization"))
			})
		},
	},
	{
		entry: "C8", name: "a new credential passes as it is", run: echoed("/token"), want: substituted,
		change: func(b *boundary) {
			b.Answer(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"access_token":"n3w-t0ken"}`) })
		},
		check: func(b *boundary) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			if !strings.Contains(b.read.String(), "n3w-t0ken") {
				return errors.New("the answer was changed")
			}
			return nil
		},
	},
	{entry: "C5", name: "in a body", run: ask("POST", "/echo/"+"?x=1", "good.test", "X-Nothing", "1"), want: want{status: []int{200}}},
	{entry: "C7", name: "800 copies in one header", run: ask("GET", "/echo", "good.test", "Authorization", strings.Repeat(P+" ", 800)), want: forbidden(policy.TooMany)},
	{
		entry: "C9", name: "redirects", run: echoed("/echo/location"), want: want{status: []int{307}, value: true},
		check: func(b *boundary) error {
			if n := len(b.Evil.Requests()); n > 0 {
				return errors.New("a redirect was followed")
			}
			return nil
		},
	},
}, append(echoes(), stored()...)...)

func echoed(path string) func(*boundary) outcome {
	return ask("GET", path, "good.test", "Authorization", bearer)
}

// echoes are C1 and C3: places and forms of an echo.
func echoes() []probe {
	var out []probe
	for _, path := range []string{"/echo", "/echo.json", "/echo/headers", "/echo/cookie", "/echo/trailer", "/echo/early", "/stream?n=2&ms=1", "/echo/status"} {
		only := ""
		if path == "/echo/status" {
			only = "h1"
		}
		out = append(out, probe{
			entry: "C1", name: "echo by " + path, run: echoed(path), only: only,
			want: want{status: []int{200, 103}, value: true, scrubs: path != "/echo/status"}, // which never goes on
		})
	}
	for name, encode := range map[string]func(string) string{
		"Base64 at 0":   func(s string) string { return b64(s) },
		"Base64 at 1":   func(s string) string { return b64("x" + s) },
		"Base64 at 2":   func(s string) string { return b64("xy" + s) },
		"Base64 of all": func(s string) string { return b64("user:" + s + ":and more") },
	} {
		out = append(out, probe{
			entry: "C3", name: name, run: echoed("/"), want: scrubbed,
			change: func(b *boundary) {
				b.Answer(func(w http.ResponseWriter, r *http.Request) {
					fmt.Fprint(w, encode(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")))
				})
			},
		})
	}
	return out
}

// stored are C6: headers that an API keeps.
func stored() []probe {
	var out []probe
	for _, field := range []string{
		"Cookie", "Referer", "User-Agent", "X-Forwarded-For", "Forwarded", "Via", "Origin", "X-Amz-Meta-A", "X-Goog-Meta-A",
		"X-Ms-Meta-A", "X-Audit-Log-Reason", "Title", "Subject", "Baggage", "Content-Disposition", "If-None-Match", "Idempotency-Key",
	} {
		out = append(out, probe{
			entry: "C6", name: field + " beside a good one", want: forbidden(policy.SurfaceOff),
			run: ask("GET", "/echo", "good.test", "Authorization", bearer, field, "x "+P),
		})
	}
	return out
}
