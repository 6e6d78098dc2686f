package egress_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/egress"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/testnet"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// newProxy is the proxy at url, with a credential if there is one.
func newProxy(t *testing.T, url, login string) *egress.Proxy {
	t.Helper()
	p := egress.New(must(egress.Parse(url)))
	if login != "" {
		p.Store = must(secret.NewStore(0))
		t.Cleanup(func() { p.Store.Close() })
		p.Login = must(testnet.Value(p.Store, login))
	}
	return p
}

// TestTunnel: each kind of proxy connects by name and by address, for the
// credential alone, and what the server says first arrives.
func TestTunnel(t *testing.T) {
	server := must(testnet.StartRaw(testnet.RawConfig{Banner: "220 ready\n", Echo: true}))
	defer server.Close()
	at := server.Addr()
	authority := must(testnet.NewCA())
	cert := must(authority.Cert("localhost"))
	proxy := must(testnet.StartProxy(map[string]netip.AddrPort{"good.test:25": at, "[2001:db8::1]:25": at, "192.0.2.1:25": at}, &cert))
	defer proxy.Close()
	secure := "https://" + strings.Replace(proxy.SecureAddr(), "127.0.0.1", "localhost", 1)
	for _, url := range []string{"http://" + proxy.Addr(), secure, "socks5h://" + proxy.Addr()} {
		for _, host := range []string{"good.test", "2001:db8::1", "192.0.2.1"} {
			p := newProxy(t, url, testnet.ProxyLogin)
			p.Roots = authority.Pool()
			c, err := p.Dial(t.Context(), host, 25)
			if err != nil {
				t.Errorf("%s by %s: %v", host, url, err)
				continue
			}
			io.WriteString(c, "echo\n")
			r := bufio.NewReader(c)
			for _, want := range []string{"220 ready\n", "echo\n"} {
				if got, err := r.ReadString('\n'); got != want {
					t.Errorf("%s by %s: got %q, %v", host, url, got, err)
				}
			}
			c.Close()
		}
		for name, tt := range map[string]struct {
			login, host string
			want        policy.Reason
		}{
			"no credential":   {"", "good.test", policy.ProxyAuthFailed},
			"a wrong one":     {"cutout:wrong", "good.test", policy.ProxyAuthFailed},
			"another server":  {testnet.ProxyLogin, "evil.test", policy.ProxyRefused},
			"no login at all": {"no-colon-in-it", "good.test", policy.ProxyAuthFailed},
		} {
			p := newProxy(t, url, tt.login)
			p.Roots = authority.Pool()
			if _, err := p.Dial(t.Context(), tt.host, 25); reason(err) != tt.want {
				t.Errorf("%s by %s: %v", name, url, err)
			}
		}
	}
	p := newProxy(t, secure, testnet.ProxyLogin)
	if _, err := p.Dial(t.Context(), "good.test", 25); reason(err) != policy.ProxyFailed || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a proxy that nobody vouches for: %v", err)
	}
	if n := len(proxy.Asked()); n != 12 {
		t.Errorf("the proxy was asked %d times", n)
	}
}

func reason(err error) policy.Reason {
	if e, ok := errors.AsType[*egress.Error](err); ok {
		return e.Reason
	}
	return policy.None
}

// TestLies holds the proxies that do not do as they should. A tunnel begins
// behind the last byte of the answer, not one before or after.
func TestLies(t *testing.T) {
	ok := "HTTP/1.1 200 Connection established\r\n"
	const socksOK = "\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
	for name, tt := range map[string]struct {
		url, says string
		want      policy.Reason
		rest      string // what the tunnel begins with
	}{
		"a server that speaks first":           {"http", ok + "\r\nSSH-2.0-x\r\n", "", "SSH-2.0-x\r\n"},
		"a second answer":                      {"http", ok + "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		"space after the head":                 {"http", ok + "\r\n \r\n", "", " \r\n"},
		"a length":                             {"http", ok + "Content-Length: 5\r\n\r\nhello", "", "hello"},
		"chunks":                               {"http", ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "", "5\r\nhello\r\n"},
		"204":                                  {"http", "HTTP/1.1 204 No Content\r\n\r\nx", "", "x"},
		"101":                                  {"http", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", policy.ProxyFailed, ""},
		"100 first":                            {"http", "HTTP/1.1 100 Continue\r\n\r\n" + ok + "\r\n", policy.ProxyFailed, ""},
		"a redirect":                           {"http", "HTTP/1.1 302 Found\r\nLocation: http://evil.test/\r\n\r\n", policy.ProxyFailed, ""},
		"403":                                  {"http", "HTTP/1.1 403 Forbidden\r\n\r\n", policy.ProxyRefused, ""},
		"407":                                  {"http", "HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\n\r\n", policy.ProxyAuthFailed, ""},
		"502":                                  {"http", "HTTP/1.1 502 Bad Gateway\r\n\r\n", policy.UpstreamFailed, ""},
		"a head without end":                   {"http", ok + strings.Repeat("X-Y: z\r\n", 1<<16) + "\r\n", policy.ProxyFailed, ""},
		"a line without end":                   {"http", "HTTP/1.1 200 " + strings.Repeat("x", 1<<19) + "\r\n\r\n", policy.ProxyFailed, ""},
		"no head":                              {"http", "SSH-2.0-x\r\n", policy.ProxyFailed, ""},
		"nothing":                              {"http", "", policy.ProxyFailed, ""},
		"half a head":                          {"http", ok, policy.ProxyFailed, ""},
		"SOCKS: speaks first":                  {"socks5", socksOK + "220 x\r\n", "", "220 x\r\n"},
		"SOCKS: bound to a name":               {"socks5", "\x05\x00\x05\x00\x00\x03\x09good.test\x01\xbbx", "", "x"},
		"SOCKS: bound to IPv6":                 {"socks5", "\x05\x00\x05\x00\x00\x04" + strings.Repeat("\x00", 18) + "x", "", "x"},
		"SOCKS: bound to what":                 {"socks5", "\x05\x00\x05\x00\x00\x02" + strings.Repeat("\x00", 18) + "x", policy.ProxyFailed, ""},
		"SOCKS: wants a credential":            {"socks5", "\x05\xff", policy.ProxyAuthFailed, ""},
		"SOCKS: wants what it was not offered": {"socks5", "\x05\x02" + socksOK[2:], policy.ProxyFailed, ""},
		"SOCKS: another method":                {"socks5", "\x05\x01" + socksOK[2:], policy.ProxyFailed, ""},
		"SOCKS: version 4":                     {"socks5", "\x00\x5a\x00\x00\x00\x00\x00\x00", policy.ProxyFailed, ""},
		"SOCKS: another version":               {"socks5", "\x04" + socksOK[1:], policy.ProxyFailed, ""},
		"SOCKS: a reply of another":            {"socks5", socksOK[:2] + "\x04" + socksOK[3:], policy.ProxyFailed, ""},
		"SOCKS: not allowed":                   {"socks5", "\x05\x00\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00", policy.ProxyRefused, ""},
		"SOCKS: refused by the server":         {"socks5", "\x05\x00\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00", policy.UpstreamFailed, ""},
		"SOCKS: cut":                           {"socks5", "\x05\x00\x05\x00\x00\x03\xffgood", policy.ProxyFailed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			at := say(t, tt.says)
			c, err := newProxy(t, tt.url+"://"+at, "").Dial(t.Context(), "good.test", 443)
			if reason(err) != tt.want || (err == nil) != (tt.want == "") {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if err != nil {
				return
			}
			defer c.Close()
			if got, _ := io.ReadAll(c); string(got) != tt.rest {
				t.Errorf("the tunnel begins with %q", got)
			}
		})
	}
}

// say is a server that says text to everybody, all at once, and ends.
func say(t *testing.T, text string) (addr string) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { l.Close() })
	go func() {
		for sayOnce(l, text) == nil {
		}
	}()
	return l.Addr().String()
}

// sayOnce says text to the next who connects.
func sayOnce(l net.Listener, text string) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	io.WriteString(c, text)
	c.(*net.TCPConn).CloseWrite()
	io.Copy(io.Discard, c)
	return nil
}

// TestSilentProxy: a proxy that never answers is given up.
func TestSilentProxy(t *testing.T) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	for _, scheme := range []string{"http", "https", "socks5"} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := newProxy(t, scheme+"://"+l.Addr().String(), "").Dial(ctx, "good.test", 443); reason(err) != policy.ProxyFailed {
			t.Errorf("%s: %v", scheme, err)
		}
		cancel()
	}
	dead := must(net.Listen("tcp", "127.0.0.1:0"))
	dead.Close()
	if _, err := newProxy(t, "http://"+dead.Addr().String(), "").Dial(t.Context(), "good.test", 443); reason(err) != policy.ProxyFailed {
		t.Error(err)
	}
}

// FuzzAnswer: whatever a proxy says, it opens a tunnel only with a 2xx, or a
// SOCKS reply of success, and everything behind that is the tunnel's.
func FuzzAnswer(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\n\r\nx", false)
	f.Add("HTTP/1.1 200 OK\r\n a\r\nB: c\r\n d\r\n\r\n\r\n", false)
	f.Add("HTTP/1.1 407 x\r\n\r\n", false)
	f.Add("\x05\x00\x05\x00\x00\x03\x01a\x01\xbbx", true)
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	f.Cleanup(func() { l.Close() })
	f.Fuzz(func(t *testing.T, text string, socks bool) {
		url := "http://"
		if socks {
			url = "socks5://"
		}
		go sayOnce(l, text)
		c, err := newProxy(t, url+l.Addr().String(), "").Dial(t.Context(), "good.test", 443)
		if err != nil {
			if reason(err) == policy.None {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		defer c.Close()
		rest, _ := io.ReadAll(c)
		head, ok := strings.CutSuffix(text, string(rest))
		if !ok {
			t.Fatalf("%q: the tunnel begins with %q, which was not said", text, rest)
		}
		if socks {
			if len(head) < 8 || head[3] != 0 {
				t.Errorf("%q opens a tunnel", text)
			}
			return
		}
		resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(head)), &http.Request{Method: "CONNECT"})
		if err != nil || resp.StatusCode/100 != 2 || !strings.HasSuffix(head, "\n") {
			t.Errorf("%q opens a tunnel behind %q", text, head)
		}
	})
}

// TestParse: URLs of proxies, and no error that repeats one.
func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"http://Proxy.Example:3128":  "http://proxy.example:3128",
		"proxy.example:3128":         "http://proxy.example:3128",
		"proxy.example":              "http://proxy.example:80",
		"https://proxy.example/":     "https://proxy.example:443",
		"socks5://10.0.0.1":          "socks5://10.0.0.1:1080",
		"socks5h://[2001:db8::1]:99": "socks5://[2001:db8::1]:99",
		"http://localhost:8080":      "http://localhost:8080",
	} {
		if s, err := egress.Parse(text); err != nil || s.URL() != want {
			t.Errorf("%s: %s, %v", text, s.URL(), err)
		}
	}
	for _, text := range []string{
		"", "ftp://proxy.example", "http://", "http://proxy.example:0", "http://proxy.example:", "http://proxy.example:99999", "http://0.0.0.0:1",
		"http://proxy.example/secret-path", "http://proxy.example?secret", "http://me:secret@proxy.example", "me:secret@proxy.example:3128",
		"http://me:secret%zz@proxy.example", "socks4://proxy.example", "http://a b/", "socks5://secret:@proxy.example", "http://[fe80::1%25eth0]:1",
	} {
		if s, err := egress.Parse(text); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, %v", text, s, err)
		}
	}
}

// TestTakes: what NO_PROXY names is reached without the proxy, by name or by
// address, and nothing else.
func TestTakes(t *testing.T) {
	p := egress.New(egress.Spec{Bypass: "internal.example,.only-below.example,10.0.0.0/8,192.0.2.7,port.example:8443"})
	for _, tt := range []struct {
		name, dst string
		want      bool
	}{
		{"api.example", "93.184.216.34:443", true},
		{"", "93.184.216.34:443", true},
		{"internal.example", "93.184.216.34:443", false},
		{"a.internal.example", "93.184.216.34:443", false},
		{"notinternal.example", "93.184.216.34:443", true},
		{"only-below.example", "93.184.216.34:443", true},
		{"a.only-below.example", "93.184.216.34:443", false},
		{"api.example", "10.1.2.3:443", false},
		{"", "192.0.2.7:22", false},
		{"port.example", "93.184.216.34:443", true},
		{"port.example", "93.184.216.34:8443", false},
	} {
		if got := p.Takes(hostname.Name(tt.name), netip.MustParseAddrPort(tt.dst)); got != tt.want {
			t.Errorf("%+v: got %t", tt, got)
		}
	}
	if egress.New(egress.Spec{Bypass: "*"}).Takes("api.example", netip.MustParseAddrPort("93.184.216.34:443")) {
		t.Error("* bypasses nothing")
	}
	if !egress.New(egress.Spec{}).Takes("api.example", netip.MustParseAddrPort("93.184.216.34:443")) {
		t.Error("nothing is taken")
	}
}

// TestLoginLeavesNoTrace: nothing that is printed of a proxy shows its
// credential.
func TestLoginLeavesNoTrace(t *testing.T) {
	p := newProxy(t, "http://127.0.0.1:1", testnet.ProxyLogin)
	_, err := p.Dial(t.Context(), "good.test", 443)
	if text := fmt.Sprintf("%v %+v %#v %v", p, p, p, err); strings.Contains(text, "pr0xy") {
		t.Error(text)
	}
}
