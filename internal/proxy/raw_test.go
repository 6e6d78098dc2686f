package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// dialTLS is a guest's own TLS connection to good.test.
func (w *world) dialTLS() *tls.Conn {
	w.t.Helper()
	c, err := w.connect(context.Background(), goodAddr)
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := w.guestTLS()
	cfg.ServerName = "good.test"
	conn := tls.Client(c, cfg)
	if err := conn.Handshake(); err != nil {
		w.t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// A raw1 is an HTTP/1 connection whose requests are written by hand.
type raw1 struct {
	net.Conn
	r *bufio.Reader
}

func (w *world) raw1() raw1 {
	c := w.dialTLS()
	return raw1{c, bufio.NewReader(c)}
}

// read reads one answer; status 0 if the connection ended instead.
func (c raw1) read() answer {
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return answer{err: err}
	}
	body, err := io.ReadAll(resp.Body)
	var all bytes.Buffer
	resp.Header.Write(&all)
	all.Write(body)
	return answer{resp.StatusCode, resp.Header, string(body), all.String(), err}
}

// send writes a request and reads the answer.
func (c raw1) send(request string) answer {
	if _, err := io.WriteString(c, request); err != nil {
		return answer{err: err}
	}
	return c.read()
}

const auth = "Authorization: Bearer " + placeholder + "\r\n"

// Each request on a connection is judged by itself. B3.
func TestLaterRequest(t *testing.T) {
	w := newWorld(t, "h1")
	first := "GET /echo HTTP/1.1\r\nHost: good.test\r\n" + auth + "\r\n"
	second := "GET /echo HTTP/1.1\r\nHost: evil.test\r\n" + auth + "\r\n"
	t.Run("kept alive", func(t *testing.T) {
		w.t = t
		c := w.raw1()
		if a := c.send(first); a.status != 200 {
			t.Fatalf("first: %d %s %v", a.status, a.body, a.err)
		}
		w.refused(c.send(second), 421, policy.AuthorityMismatch)
		if a := c.send(first); a.status != 200 {
			t.Fatalf("third: %d %s %v", a.status, a.body, a.err)
		}
	})
	t.Run("pipelined", func(t *testing.T) {
		w.t = t
		w.good.Reset()
		c := w.raw1()
		io.WriteString(c, first+second+first)
		for i, want := range []int{200, 421, 200} {
			if a := c.read(); a.status != want {
				t.Errorf("answer %d: %d %s %v", i, a.status, a.body, a.err)
			}
		}
		if n := len(w.good.Requests()); n != 2 {
			t.Errorf("upstream got %d requests", n)
		}
	})
}

// When the server ends an idle connection the guest's ends too, so that its
// client does not send into the void.
func TestCloseMirrored(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol)
		var c net.Conn
		if protocol == "h1" {
			raw := w.raw1()
			if a := raw.send("GET /ok HTTP/1.1\r\nHost: good.test\r\n\r\n"); a.status != 200 {
				t.Fatalf("answer is %d %v", a.status, a.err)
			}
			c = raw
		} else {
			raw := w.raw2()
			raw.request(1, ":method", "GET", ":scheme", "https", ":path", "/ok", ":authority", "good.test")
			if s := raw.status(1); s != "200" {
				t.Fatalf("status is %q", s)
			}
			c = raw.conn
		}
		w.good.Close()
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.Copy(io.Discard, c); timedOut(err) {
			t.Error("the guest's connection is still open")
		}
	})
}

// Requests that two parsers could read in two ways. B1, B2, B6, B7, B9, A15.
func TestMalformed(t *testing.T) {
	const get = "GET /echo HTTP/1.1\r\n"
	tests := map[string]string{
		"two Hosts":             get + "Host: good.test\r\nHost: good.test\r\n" + auth + "\r\n",
		"no Host":               get + auth + "\r\n",
		"empty Host":            get + "Host: \r\n" + auth + "\r\n",
		"both framings":         "POST /echo HTTP/1.1\r\nHost: good.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n" + auth + "\r\n0\r\n\r\n",
		"two lengths":           "POST /echo HTTP/1.1\r\nHost: good.test\r\nContent-Length: 4\r\nContent-Length: 4\r\n" + auth + "\r\nbody",
		"space before colon":    get + "Host: good.test\r\nAuthorization : Bearer " + placeholder + "\r\n\r\n",
		"folded":                get + "Host: good.test\r\nX: a\r\n b\r\n" + auth + "\r\n",
		"bare LF":               get + "Host: good.test\n" + auth + "\r\n",
		"NUL":                   get + "Host: good.test\r\nX: a\x00b\r\n" + auth + "\r\n",
		"four words":            "GET /echo x HTTP/1.1\r\nHost: good.test\r\n" + auth + "\r\n",
		"lower-case version":    "GET /echo http/1.1\r\nHost: good.test\r\n" + auth + "\r\n",
		"CONNECT":               "CONNECT good.test:443 HTTP/1.1\r\nHost: good.test:443\r\n" + auth + "\r\n",
		"h2c":                   get + "Host: good.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n" + auth + "\r\n",
		"prior-knowledge h2":    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"gzip, chunked":         "POST /echo HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: gzip, chunked\r\n" + auth + "\r\n0\r\n\r\n",
		"not HTTP in TLS":       "hello\r\nkey " + placeholder + "\r\n",
		"placeholder in method": placeholder[1:] + "$ / HTTP/1.1\nHost: good.test\r\n\r\n",
	}
	for name, request := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "h1")
			a := w.raw1().send(request)
			status, reason := 400, policy.MalformedRequest
			if name == "CONNECT" {
				status, reason = 403, policy.Tunnelled
			}
			if a.status != status || !strings.Contains(a.body, string(reason)) {
				t.Errorf("answer is %d %s %v", a.status, a.body, a.err)
			}
			w.expect(audit.Refused, reason)
			if n := len(w.good.Requests()); n != 0 {
				t.Errorf("upstream got %d requests", n)
			}
		})
	}
}

// Authorities that agree work and the others do not. B2, B4.
func TestAuthority(t *testing.T) {
	tests := []struct {
		target, host string
		status       int
	}{
		{"/echo", "good.test", 200},
		{"/echo", "GOOD.TEST.:443", 200},
		{"/echo", "evil.test", 421},
		{"/echo", "good.test:8443", 421},
		{"/echo", "user@good.test", 421},
		{"/echo", "[::1]", 421},
		{"/echo", "good.test%00.evil.test", 421},
		{"https://good.test/echo", "good.test", 200},
		{"https://GOOD.test:443/echo", "good.test", 200},
		{"https://evil.test/echo", "good.test", 421},
		{"https://good.test/echo", "evil.test", 421},
		{"https://user@good.test/echo", "good.test", 421},
		{"http://good.test/echo", "good.test", 421},
	}
	w := newWorld(t, "h1")
	for _, tt := range tests {
		t.Run(tt.target+" "+tt.host, func(t *testing.T) {
			w.t = t
			w.good.Reset()
			a := w.raw1().send("GET " + tt.target + " HTTP/1.1\r\nHost: " + tt.host + "\r\n" + auth + "\r\n")
			if a.status != tt.status && !(tt.status == 421 && a.status == 400) {
				t.Fatalf("answer is %d %s %v, want %d", a.status, a.body, a.err, tt.status)
			}
			got := w.good.Requests()
			if tt.status != 200 {
				if len(got) > 0 {
					t.Errorf("upstream got %d requests", len(got))
				}
				return
			}
			if got[0].Target != "/echo" || got[0].Host != "good.test" || !strings.Contains(got[0].Text(), value) {
				t.Errorf("upstream got %s", got[0].Text())
			}
		})
	}
}

// What the guest sends goes on as it is, but for what is of one hop only.
func TestFidelity(t *testing.T) {
	targets := []string{
		"/", "/a|b/%2fx?q=a;b", "/%zz", "//x", "//x/%2f?a=%", "/?", "//?", "/a//b/../c", "/%7Euser", "*",
		"//a|b", // cannot go on as it is: refused
	}
	for _, target := range targets {
		t.Run(target, func(t *testing.T) {
			w := newWorld(t, "h1")
			cert := must(w.ca.Cert("good.test"))
			raw := must(testnet.StartRaw(testnet.RawConfig{Cert: &cert, Reply: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"}))
			t.Cleanup(func() { raw.Close() })
			w.to[goodAddr] = raw.Addr()
			method := "GET"
			if target == "*" {
				method = "OPTIONS"
			}
			a := w.raw1().send(method + " " + target + " HTTP/1.1\r\nHost: good.test\r\nAccept: a/b\r\nX-Empty:\r\nTE: trailers\r\n" +
				"Keep-Alive: timeout=5\r\nConnection: X-Mine\r\nX-Mine: 1\r\nProxy-Authorization: x\r\n\r\n")
			if target == "//a|b" {
				w.refused(a, 400, policy.MalformedRequest)
				return
			}
			if a.status != 200 {
				t.Fatalf("answer is %d %s %v", a.status, a.body, a.err)
			}
			want := method + " " + target + " HTTP/1.1\r\nHost: good.test\r\nAccept: a/b\r\nTe: trailers\r\nX-Empty: \r\n\r\n"
			if got := raw.Received()[0]; got != want {
				t.Errorf("upstream got %q, want %q", got, want)
			}
		})
	}
}

func TestExpectContinue(t *testing.T) {
	for _, body := range []struct{ name, head, text string }{
		{"fixed", "Content-Length: 5\r\n", "hello"},
		{"chunked", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"},
	} {
		t.Run(body.name, func(t *testing.T) {
			w := newWorld(t, "h1")
			c := w.raw1()
			io.WriteString(c, "POST /upload HTTP/1.1\r\nHost: good.test\r\nExpect: 100-continue\r\n"+body.head+"\r\n")
			line, _ := c.r.ReadString('\n')
			empty, _ := c.r.ReadString('\n')
			if line != "HTTP/1.1 100 Continue\r\n" || empty != "\r\n" {
				t.Fatalf("got %q", line)
			}
			if a := c.send(body.text); a.status != 200 || !strings.Contains(a.body, `"bytes":5`) {
				t.Errorf("answer is %d %s %v", a.status, a.body, a.err)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		w := newWorld(t, "h1")
		c := w.raw1()
		a := c.send("POST /upload HTTP/1.1\r\nHost: evil.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		if a.status != 421 {
			t.Errorf("answer is %d %s %v", a.status, a.body, a.err)
		}
	})
}

// A body whose framing breaks leaves the upstream's message incomplete.
func TestBrokenBody(t *testing.T) {
	w := newWorld(t, "h1")
	a := w.raw1().send("POST /echo HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n" + auth + "\r\n5\r\nhello\r\n+5\r\nworld\r\n0\r\n\r\n")
	if a.status == 200 && a.err == nil {
		t.Errorf("answer is %d %s", a.status, a.body)
	}
	for _, r := range w.good.Requests() {
		if r.BodyErr == "" {
			t.Errorf("upstream got a whole message: %s", r.Text())
		}
	}
}

// Elsewhere an upgrade that the server agrees to opens a tunnel, and one that
// it does not leaves HTTP.
func TestUpgradeElsewhere(t *testing.T) {
	w := newWorld(t, "h1", func(w *world) { w.cfg.Intercept = All })
	cert := must(w.ca.Cert("evil.test"))
	u := w.start(testnet.UpstreamConfig{Cert: &cert, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/yes" {
			rw.WriteHeader(404)
			return
		}
		c, _, _ := http.NewResponseController(rw).Hijack()
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nwelcome ")
		io.Copy(c, c)
	})})
	w.to[evilAddr] = u.Addr()
	c, err := w.connect(context.Background(), evilAddr)
	if err != nil {
		t.Fatal(err)
	}
	cfg := w.guestTLS()
	cfg.ServerName = "evil.test"
	conn := tls.Client(c, cfg)
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	raw := raw1{conn, bufio.NewReader(conn)}
	ask := func(path string) string {
		return "GET " + path + " HTTP/1.1\r\nHost: evil.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
	}
	if a := raw.send(ask("/no")); a.status != 404 {
		t.Fatalf("answer is %d %s %v", a.status, a.body, a.err)
	}
	io.WriteString(conn, ask("/yes")+"first ")
	resp, err := http.ReadResponse(raw.r, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("answer is %v, %v", resp, err)
	}
	io.WriteString(conn, "second")
	got := make([]byte, len("welcome first second"))
	if _, err := io.ReadFull(raw.r, got); string(got) != "welcome first second" {
		t.Errorf("tunnel gave %q, %v", got, err)
	}
}
