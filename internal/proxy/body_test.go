package proxy

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// inBodies turns the body surface of the world's secret on.
func inBodies(w *world) {
	withSurfaces(secret.Surfaces{Header: true, Basic: true, Body: []secret.BodyPart{{}}})(w)
}

func withSurfaces(s secret.Surfaces) option {
	return secrets(func(w *world) []*secret.Secret {
		x := w.secret("API_KEY", placeholder, value, "good.test", 443)
		x.Surfaces = &s
		return []*secret.Secret{x}
	})
}

// everywhere makes placeholders visible on every host, with an action.
func everywhere(v secret.Violation) option {
	return func(w *world) { w.cfg.Intercept, w.cfg.OnViolation = All, v }
}

func spooling(w *world) { w.cfg.SpoolDir = w.root.(*testing.T).TempDir() }

// framings are the ways to say how long a body is.
var framings = map[string]func(body string) func(*http.Request){
	"fixed": func(body string) func(*http.Request) {
		return func(r *http.Request) { r.ContentLength = int64(len(body)) }
	},
	"chunked": func(string) func(*http.Request) { return func(r *http.Request) { r.ContentLength = -1 } },
}

// post sends body, hidden from net/http so that it does not know its length.
func (w *world) post(c *http.Client, url, body string, edits ...func(*http.Request)) answer {
	w.t.Helper()
	return w.do(c, "POST", url, struct{ io.Reader }{strings.NewReader(body)}, func(r *http.Request) {
		r.Header.Set("Content-Type", "text/plain")
		for _, edit := range edits {
			edit(r)
		}
	})
}

func (w *world) wantBody(n int, want string) testnet.Request {
	w.t.Helper()
	r := w.last(w.good, n)
	if string(r.Body) != want[:min(len(want), 64<<10)] || r.BodySize != int64(len(want)) || r.BodySHA256 != sum(want) || r.BodyErr != "" {
		w.t.Errorf("upstream got %d bytes %.80q (%s), want %d %.80q", r.BodySize, r.Body, r.BodyErr, len(want), want)
	}
	return r
}

func sum(s string) string { h := sha256.Sum256([]byte(s)); return hex.EncodeToString(h[:]) }

func TestBodySubstituted(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol, inBodies)
		c := w.client()
		n := 0
		for framing, edit := range framings {
			for _, body := range []string{placeholder, "key=" + placeholder + ";", "no placeholder", strings.Repeat("x", 100_000) + placeholder + strings.Repeat("y", 50_000), "$MSB_API_KE", "$"} {
				a := w.post(c, "https://good.test/upload", body, edit(body), header("Authorization", "Bearer "+placeholder))
				if a.status != 200 {
					t.Fatalf("%s: status %d %s %v", framing, a.status, a.body, a.err)
				}
				n++
				want := strings.ReplaceAll(body, placeholder, value)
				r := w.wantBody(n, want)
				length := ""
				if framing == "fixed" {
					length = strconv.Itoa(len(want))
				}
				if got := r.Header.Get("Content-Length"); got != length {
					t.Errorf("%s: Content-Length is %q, want %q", framing, got, length)
				}
				if r.Header.Get("Authorization") != "Bearer "+value {
					t.Errorf("head got %q", r.Header)
				}
				for name := range r.Header {
					if len(name) > 20 {
						t.Errorf("upstream got %s", name)
					}
				}
				w.clean(a.all)
			}
		}
		for _, e := range w.found(audit.Substituted) {
			if e.Surface == "body" && (e.Secret != "API_KEY" || e.Host != "good.test" || e.Path != "/upload") {
				t.Errorf("event %+v", e)
			}
		}
	})
}

// A request has one event for all copies of a placeholder in its body.
func TestBodyEvents(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		for framing, edit := range framings {
			w := newWorld(t, protocol, inBodies)
			body := strings.Repeat(placeholder+" ", 5)
			w.post(w.client(), "https://good.test/upload", body, edit(body))
			w.wantBody(1, strings.Repeat(value+" ", 5))
			if e := w.found(audit.Substituted); len(e) != 1 || e[0].Surface != "body" {
				t.Errorf("%s: events %+v", framing, e)
			}
			if n := len(w.found(audit.Carried)); n > 0 {
				t.Errorf("%s: %d were carried", framing, n)
			}
		}
	})
}

// With the surface off a body carries the inert text, as does one to a host
// that is nobody's.
func TestBodyCarriedInert(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol, everywhere(secret.Violation{}))
		c := w.client()
		for framing, edit := range framings {
			for _, host := range []string{"good.test", "evil.test"} {
				body := "please remember " + placeholder
				if a := w.post(c, "https://"+host+"/upload", body, edit(body)); a.status != 200 {
					t.Errorf("%s to %s: %d %s %v", framing, host, a.status, a.body, a.err)
				}
			}
		}
		w.wantBody(2, "please remember "+placeholder)
		w.unseen()
		w.expect(audit.Carried, policy.SurfaceOff)
		w.expect(audit.Carried, policy.HostNotAllowed)
	})
}

// on_violation block: a body that has begun is left visibly incomplete.
func TestBodyBlocked(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		for framing, edit := range framings {
			for _, action := range []secret.Action{secret.Block, secret.BlockAndTerminate} {
				w := newWorld(t, protocol, everywhere(secret.Violation{Action: action}))
				c := w.client()
				body := strings.Repeat("x", 300_000) + placeholder + strings.Repeat("y", 300_000)
				a := w.post(c, "https://evil.test/upload", body, edit(body))
				if a.err == nil && (a.status != 403 || !strings.Contains(a.body, `"host_not_allowed"`)) {
					t.Errorf("%s: %d %s", framing, a.status, a.body)
				}
				// An HTTP/1 client that goes on writing may miss the answer:
				// net/http resets the connection after half a second.
				if late := protocol == "h1" && (errors.Is(a.err, syscall.ECONNRESET) || errors.Is(a.err, syscall.EPIPE)); a.err != nil && !late {
					t.Errorf("%s: %v", framing, a.err)
				}
				if e := w.expect(audit.Aborted, policy.HostNotAllowed); e.Secret != "API_KEY" || e.Surface != "body" {
					t.Errorf("event %+v", e)
				}
				if r := w.last(w.evil, 1); r.BodyErr == "" || strings.Contains(string(r.Body), placeholder) {
					t.Errorf("%s: upstream's body ended well after %d bytes", framing, r.BodySize)
				}
				if n := len(w.ended); n != 0 != (action == secret.BlockAndTerminate) {
					t.Errorf("the sandbox was ended %d times", n)
				}
				if n := len(w.found(audit.Aborted)); n != 1 {
					t.Errorf("%d events", n)
				}
			}
		}
	})
}

// block,hold: nothing reaches the upstream.
func TestBodyHeld(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol, everywhere(secret.Violation{Action: secret.Block, Hold: true}), spooling)
		c := w.client()
		for framing, edit := range framings {
			body := strings.Repeat("x", 20<<20) + placeholder
			w.refused(w.post(c, "https://evil.test/upload", body, edit(body)), 403, policy.HostNotAllowed)
			if n := len(w.evil.Requests()); n > 0 {
				t.Errorf("%s: upstream got %d requests", framing, n)
			}
		}
		trailers := func(r *http.Request) { r.ContentLength, r.Trailer = -1, http.Header{"X-End": {"end"}} }
		if a := w.post(c, "https://evil.test/upload", "innocent", trailers); a.status != 200 {
			t.Errorf("innocent body: %d %s %v", a.status, a.body, a.err)
		}
		if r := w.last(w.evil, 1); string(r.Body) != "innocent" || r.Trailer.Get("X-End") != "end" {
			t.Errorf("upstream got %q, trailer %q", r.Body, r.Trailer)
		}
		w.noneHeld()
	})
}

// noneHeld checks that everything taken was given back.
func (w *world) noneHeld() {
	w.t.Helper()
	for range 100 {
		if w.proxy.held.used.Load() == 0 && w.proxy.spooled.used.Load() == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Errorf("%d bytes are held, %d on disk", w.proxy.held.used.Load(), w.proxy.spooled.used.Load())
}

// An answer that has begun breaks off with the request.
func TestBodyRefusedAfterAnswer(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol, everywhere(secret.Violation{Action: secret.BlockAndTerminate}))
		answer := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			http.NewResponseController(rw).EnableFullDuplex()
			io.WriteString(rw, "early")
			http.NewResponseController(rw).Flush()
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		})
		cert := must(w.ca.Cert("evil.test"))
		w.serve("evil.test", evilAddr, w.start(testnet.UpstreamConfig{Cert: &cert, Handler: answer}).Addr())
		body, say := io.Pipe()
		r, _ := http.NewRequest("POST", "https://evil.test/", body)
		resp, err := w.client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		early := make([]byte, len("early")) // a reset drops what is not sent yet
		if _, err := io.ReadFull(resp.Body, early); err != nil {
			t.Fatal(err)
		}
		go io.WriteString(say, placeholder+"\n")
		if text, err := io.ReadAll(resp.Body); err == nil || len(text) != 0 {
			t.Errorf("after %q the answer is %q, %v", early, text, err)
		}
		w.expect(audit.Aborted, policy.HostNotAllowed)
		if len(w.ended) != 1 {
			t.Errorf("the sandbox was ended %d times", len(w.ended))
		}
		say.Close()
	})
}

type flushWriter interface {
	io.WriteCloser
	Flush() error
}

var encoders = map[string]func(io.Writer) flushWriter{
	"gzip":    func(w io.Writer) flushWriter { return gzip.NewWriter(w) },
	"deflate": func(w io.Writer) flushWriter { return zlib.NewWriter(w) },
	"br":      func(w io.Writer) flushWriter { return brotli.NewWriter(w) },
	"zstd": func(w io.Writer) flushWriter {
		z, _ := zstd.NewWriter(w, zstd.WithAllLitEntropyCompression(true))
		return z
	},
}

func coded(text string, codings ...string) string {
	for _, c := range codings {
		var b bytes.Buffer
		z := encoders[c](&b)
		io.WriteString(z, text)
		z.Close()
		text = b.String()
	}
	return text
}

func TestBodyCoded(t *testing.T) {
	text := strings.Repeat("the key is "+placeholder+", truly. ", 10)
	protocols(t, func(t *testing.T, protocol string) {
		for _, stack := range []string{"gzip", "deflate", "br", "zstd", "br, gzip"} {
			for framing, edit := range framings {
				body := coded(text, strings.Split(stack, ", ")...)
				how := header("Content-Encoding", stack)
				on := newWorld(t, protocol, inBodies)
				a := on.post(on.client(), "https://good.test/upload", body, edit(body), how)
				r := on.wantBody(1, strings.ReplaceAll(text, placeholder, value))
				if a.status != 200 || r.Header.Get("Content-Encoding") != "" {
					t.Errorf("%s %s: %d, coding %q", stack, framing, a.status, r.Header.Get("Content-Encoding"))
				}
				on.noneHeld()

				off := newWorld(t, protocol)
				off.post(off.client(), "https://good.test/upload", body, edit(body), how)
				if r := off.wantBody(1, body); r.Header.Get("Content-Encoding") != stack {
					t.Errorf("%s %s: with the surface off the coding is %q", stack, framing, r.Header.Get("Content-Encoding"))
				}
			}
		}
	})
}

// Where a placeholder is to block, a coded body is searched decoded, and goes
// up as it is if there is none.
func TestBodyCodedBlocked(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol, everywhere(secret.Violation{Action: secret.Block}))
		c := w.client()
		n := 0
		for _, coding := range []string{"gzip", "deflate", "br", "zstd"} {
			for framing, edit := range framings {
				body := coded(strings.Repeat("abc", 1000)+placeholder, coding)
				a := w.post(c, "https://evil.test/upload", body, edit(body), header("Content-Encoding", coding))
				if a.status != 403 {
					t.Errorf("%s %s: %d %s %v", coding, framing, a.status, a.body, a.err)
				}
				if n++; w.last(w.evil, n).BodyErr == "" {
					t.Errorf("%s %s: upstream's body ended well", coding, framing)
				}
				good := coded(strings.Repeat("abc", 1000), coding)
				if a := w.post(c, "https://evil.test/upload", good, edit(good), header("Content-Encoding", coding)); a.status != 200 {
					t.Errorf("%s %s, innocent: %d %s %v", coding, framing, a.status, a.body, a.err)
				}
				if n++; string(w.last(w.evil, n).Body) != good {
					t.Errorf("%s %s, innocent: the body has changed", coding, framing)
				}
			}
		}
		w.noneHeld()
	})
}

// D8: what cannot be decoded is refused where values could be written.
func TestBodyCodingRefused(t *testing.T) {
	bomb := coded(strings.Repeat("\x00", 100<<20), "gzip")
	for name, tt := range map[string]struct {
		body, coding string
		status       int
		reason       policy.Reason
	}{
		"unknown":   {"x", "compress", 403, policy.UnknownCoding},
		"aws":       {"x", "aws-chunked", 403, policy.UnknownCoding},
		"stacked":   {"x", "gzip, dcb", 403, policy.UnknownCoding},
		"bomb":      {bomb, "gzip", 413, policy.BodyTooLarge},
		"truncated": {bomb[:1000], "gzip", 400, policy.MalformedRequest},
		"followed":  {coded("x", "gzip") + "y", "gzip", 400, policy.MalformedRequest},
	} {
		t.Run(name, func(t *testing.T) {
			protocols(t, func(t *testing.T, protocol string) {
				for framing, edit := range framings {
					w := newWorld(t, protocol, inBodies, spooling)
					a := w.post(w.client(), "https://good.test/upload", tt.body, edit(tt.body), header("Content-Encoding", tt.coding))
					if a.status != tt.status || !strings.Contains(a.body, string(tt.reason)) {
						t.Errorf("%s: %d %s %v", framing, a.status, a.body, a.err)
					}
					if got := w.good.Requests(); len(got) > 0 && got[0].BodyErr == "" {
						t.Errorf("%s: upstream got a whole request", framing)
					}
					w.noneHeld()
				}
			})
		})
	}
	w := newWorld(t, "h1")
	if a := w.post(w.client(), "https://good.test/upload", "x", header("Content-Encoding", "compress")); a.status != 200 {
		t.Errorf("with the surface off: %d %s", a.status, a.body)
	}
}

// D8: a body that its head vouches for is never changed.
func TestBodySigned(t *testing.T) {
	signed := map[string]func(*http.Request){
		"md5":           header("Content-MD5", "x"),
		"digest":        header("Digest", "sha-256=x"),
		"rfc 9530":      header("Content-Digest", "sha-256=:x:"),
		"aws":           header("X-Amz-Content-Sha256", strings.Repeat("0", 64)),
		"aws streaming": header("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
		"aws signature": header("Authorization", "AWS4-HMAC-SHA256 Credential=x, Signature=y"),
		"google":        header("X-Goog-Content-Sha256", "x"),
		"rfc 9421":      header("Signature-Input", `sig1=("@method" "content-digest");keyid="k"`),
		"webhook":       header("X-Hub-Signature-256", "sha256=x"),
		"trailer":       func(r *http.Request) { r.ContentLength, r.Trailer = -1, http.Header{"Content-Digest": {"x"}} },
	}
	open := map[string]func(*http.Request){
		"unsigned":       header("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"),
		"unsigned aws":   both(header("Authorization", "AWS4-HMAC-SHA256 Credential=x, Signature=y"), header("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")),
		"other fields":   header("Signature-Input", `sig1=("@method" "@path");keyid="k"`),
		"nothing signed": header("Signature", "sig1=:x:"),
	}
	protocols(t, func(t *testing.T, protocol string) {
		for framing, frame := range framings {
			for name, edit := range signed {
				w := newWorld(t, protocol, inBodies)
				c := w.client()
				a := w.post(c, "https://good.test/upload", "x "+placeholder, frame("x "+placeholder), edit)
				if a.status != 403 || !strings.Contains(a.body, "body_is_signed") {
					t.Errorf("%s, %s: %d %s %v", name, framing, a.status, a.body, a.err)
				}
				w.expect(audit.Aborted, policy.BodyIsSigned)
				zipped := coded("x "+placeholder, "gzip")
				if a := w.post(c, "https://good.test/upload", zipped, frame(zipped), edit, header("Content-Encoding", "gzip")); a.status != 403 {
					t.Errorf("%s, %s, gzip: %d %s %v", name, framing, a.status, a.body, a.err)
				}
				if a := w.post(c, "https://good.test/upload", "innocent", frame("innocent"), edit); a.status != 200 {
					t.Errorf("%s, %s, innocent: %d %s %v", name, framing, a.status, a.body, a.err)
				}
				w.unseen()
			}
			for name, edit := range open {
				w := newWorld(t, protocol, inBodies)
				w.post(w.client(), "https://good.test/upload", "x "+placeholder, frame("x "+placeholder), edit)
				w.t = t
				if r := w.wantBody(1, "x "+value); r.BodyErr != "" {
					t.Errorf("%s, %s: %s", name, framing, r.BodyErr)
				}
			}
		}
	})
}

// D8: sizes around what is held in memory, and far above it.
func TestBodySizes(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol, inBodies, spooling)
		c := w.client()
		for i, size := range []int{spoolFrom - 1, spoolFrom, spoolFrom + 1, 40 << 20} {
			body := strings.Repeat("z", size-len(placeholder)-3) + placeholder + "end"
			a := w.post(c, "https://good.test/upload", body, framings["fixed"](body))
			want := strings.ReplaceAll(body, placeholder, value)
			if r := w.wantBody(i+1, want); a.status != 200 || r.Header.Get("Content-Length") != fmt.Sprint(len(want)) {
				t.Errorf("%d bytes: %d %s %v, length %s", size, a.status, a.body, a.err, r.Header.Get("Content-Length"))
			}
		}
		w.noneHeld()
	})
}

// D8, E4: no room is a refusal before anything goes up, and leaves nothing.
func TestBodyTooLarge(t *testing.T) {
	body := strings.Repeat("z", spoolFrom+1<<20)
	for name, opt := range map[string]option{
		"no directory": func(w *world) { w.cfg.SpoolDir = "" },
		"quota":        spooling,
		"full disk":    spooling,
		"gone":         func(w *world) { w.cfg.SpoolDir = "/nonexistent" },
	} {
		t.Run(name, func(t *testing.T) {
			protocols(t, func(t *testing.T, protocol string) {
				w := newWorld(t, protocol, inBodies, opt)
				switch name {
				case "quota":
					w.proxy.spooled.limit = spoolFrom
				case "full disk":
					w.proxy.diskFull = full
				}
				w.refused(w.post(w.client(), "https://good.test/upload", body, framings["fixed"](body)), 413, policy.BodyTooLarge)
				if n := len(w.good.Requests()); n > 0 {
					t.Errorf("upstream got %d requests", n)
				}
				w.noneHeld()
			})
		})
	}
}

// With the budget used up short bodies wait on disk too.
func TestBodyBudget(t *testing.T) {
	w := newWorld(t, "h1", inBodies, spooling)
	w.proxy.held.limit = 0
	body := "key " + placeholder
	w.post(w.client(), "https://good.test/upload", body, framings["fixed"](body))
	w.wantBody(1, "key "+value)
	w.noneHeld()
}

// gRPC messages have their lengths inside.
func TestBodySameLength(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		equal := strings.Repeat("p", len(value))
		w := newWorld(t, protocol, secrets(func(w *world) []*secret.Secret {
			a, b := w.secret("API_KEY", placeholder, value, "good.test", 443), w.secret("EQUAL", equal, strings.ToUpper(value), "good.test", 443)
			a.Surfaces = &secret.Surfaces{Body: []secret.BodyPart{{}}}
			b.Surfaces = a.Surfaces
			return []*secret.Secret{a, b}
		}))
		c := w.client()
		for framing, edit := range framings {
			a := w.post(c, "https://good.test/upload", "\x00\x00\x00\x00\x20"+equal, edit("12345"+equal), header("Content-Type", "application/grpc+proto"))
			if a.status != 200 {
				t.Errorf("%s: %d %s %v", framing, a.status, a.body, a.err)
			}
		}
		w.wantBody(2, "\x00\x00\x00\x00\x20"+strings.ToUpper(value))
		a := w.post(c, "https://good.test/a.B/C", "\x00\x00\x00\x00\x0c"+placeholder, header("Content-Type", "application/grpc"), framings["chunked"](""))
		if a.header.Get("Grpc-Status") != "9" && a.header.Get("Grpc-Status") != "7" {
			t.Errorf("unequal: %d %q %v", a.status, a.header, a.err)
		}
		w.expect(audit.Aborted, policy.NeedsEqualLength)
		w.unseen()
	})
}

// The method that sends the request back.
func TestBodyTrace(t *testing.T) {
	w := newWorld(t, "h1", inBodies)
	a := w.do(w.client(), "TRACK", "https://good.test/", strings.NewReader(placeholder), nil)
	if a.status != 403 || !strings.Contains(a.body, "trace_method") {
		t.Errorf("%d %s %v", a.status, a.body, a.err)
	}
	w.unseen()
}

// B11: trailers are searched, never substituted.
func TestBodyTrailer(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol, inBodies)
		a := w.post(w.client(), "https://good.test/upload", "x "+placeholder, func(r *http.Request) {
			r.ContentLength, r.Trailer = -1, http.Header{"X-End": {placeholder}}
		})
		r := w.wantBody(1, "x "+value)
		if a.status != 200 || r.Trailer.Get("X-End") != placeholder {
			t.Errorf("%d, trailer %q", a.status, r.Trailer)
		}
		if e := w.expect(audit.Carried, policy.SurfaceOff); e.Surface != "trailer" {
			t.Errorf("event %+v", e)
		}
	})
}

// What is to be written is on record before it can be.
func TestBodyAuditUnavailable(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		for framing, edit := range framings {
			w := newWorld(t, protocol, inBodies)
			w.cfg.Audit.Close()
			a := w.post(w.client(), "https://good.test/upload", "x "+placeholder, edit("x "+placeholder))
			if a.status != 503 || !strings.Contains(a.body, "audit_unavailable") {
				t.Errorf("%s: %d %s %v", framing, a.status, a.body, a.err)
			}
			w.unseen()
		}
	})
}

// A conversation over one request, values and all.
func TestBodyFullDuplex(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol, inBodies, handler(func(rw http.ResponseWriter, r *http.Request) {
			control := http.NewResponseController(rw)
			control.EnableFullDuplex()
			rw.WriteHeader(200)
			control.Flush()
			buf := make([]byte, 1000)
			for {
				n, err := r.Body.Read(buf)
				fmt.Fprintf(rw, "%d\n", n)
				control.Flush()
				if err != nil {
					return
				}
			}
		}))
		body, say := io.Pipe()
		r, _ := http.NewRequest("POST", "https://good.test/", body)
		r.Header.Set("Content-Type", "text/plain")
		resp, err := w.client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		for i, text := range []string{"hello\n", placeholder + "\n", "bye\n"} {
			io.WriteString(say, text)
			want, got := len(strings.ReplaceAll(text, placeholder, value)), 0
			for got < want {
				var n int
				if _, err := fmt.Fscanln(resp.Body, &n); err != nil {
					t.Fatalf("message %d: %d of %d bytes, %v", i, got, want, err)
				}
				got += n
			}
		}
		say.Close()
	})
}

// The pins of another host never open a body. A2, C5.
func TestBodyNotOpened(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol, inBodies, everywhere(secret.Violation{}))
		for framing, edit := range framings {
			body := `{"k":"` + placeholder + `"}`
			w.post(w.client(), "https://evil.test/upload", body, edit(body), header("Content-Type", "application/json"))
			if r := w.last(w.evil, 1); string(r.Body) != body {
				t.Errorf("%s: upstream got %q", framing, r.Body)
			}
			w.evil.Reset()
		}
		w.unseen()
		if len(w.found(audit.Substituted)) > 0 {
			t.Error("something is on record as substituted")
		}
	})
}
