package reframe

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// dial serves one end of a loopback connection and returns the other.
func dial(t testing.TB, cfg Config, h http.HandlerFunc) (guest net.Conn, c *Conn, srv *http.Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	guest, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ours, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	guest.SetDeadline(time.Now().Add(30 * time.Second))
	c, srv = serve(ours, cfg, h)
	t.Cleanup(func() { guest.Close(); srv.Close() })
	return guest, c, srv
}

func claim(t testing.TB, r *http.Request) Head {
	h, ok := connOf(r).Claim(r)
	if !ok {
		t.Errorf("request %s is not claimable", r.RequestURI)
	}
	return h
}

func within(t testing.TB, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatal("no " + what)
	}
}

// TestFaultBehindARequestInFlight: net/http reads ahead while a handler runs,
// and a fault there must not disturb the request that is being served.
func TestFaultBehindARequestInFlight(t *testing.T) {
	found, proceed := make(chan struct{}), make(chan struct{})
	guest, _, _ := dial(t, Config{OnReject: func(Reject) { close(found) }}, func(w http.ResponseWriter, r *http.Request) {
		claim(t, r)
		<-proceed
		if err := r.Context().Err(); err != nil {
			t.Errorf("the request was cancelled: %v", err)
		}
		io.WriteString(w, "first")
	})
	io.WriteString(guest, good+"GET /2 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
	within(t, "fault", found)
	time.Sleep(20 * time.Millisecond) // let the read-ahead come to rest
	close(proceed)
	all, err := io.ReadAll(guest)
	if err != nil {
		t.Fatal(err)
	}
	first, second, ok := strings.Cut(string(all), "first")
	if !ok || !strings.HasPrefix(first, "HTTP/1.1 200") || !strings.HasPrefix(second, "HTTP/1.1 400") {
		t.Errorf("answered %q", all)
	}
}

func TestNoAnswerBehindTheLastResponse(t *testing.T) {
	guest, _, _ := dial(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		claim(t, r)
		time.Sleep(10 * time.Millisecond)
		w.Header().Set("Connection", "close")
	})
	io.WriteString(guest, good+"nonsense\r\n")
	all, _ := io.ReadAll(guest)
	if n := strings.Count(string(all), "HTTP/1.1 "); n != 1 {
		t.Errorf("%d responses, the first of which said it was the last: %q", n, all)
	}
}

func TestGuestThatLeavesCancels(t *testing.T) {
	for _, head := range []string{good, "GET / HTTP/1.1\r\nHost: good.test\r\nUpgrade: websocket\r\n\r\n"} {
		started, cancelled := make(chan struct{}), make(chan struct{})
		guest, _, _ := dial(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
			claim(t, r)
			close(started)
			<-r.Context().Done()
			close(cancelled)
		})
		io.WriteString(guest, head)
		within(t, "request", started)
		guest.Close()
		within(t, "cancellation", cancelled)
	}
}

// TestRefusalIsReadable: closing a socket with unread bytes resets it, and
// the guest would never see why.
func TestRefusalIsReadable(t *testing.T) {
	guest, _, _ := dial(t, Config{}, func(w http.ResponseWriter, r *http.Request) { claim(t, r) })
	io.WriteString(guest, "POST / HTTP/1.1\r\nHost : good.test\r\n\r\n"+strings.Repeat("x", 100<<10))
	resp, err := http.ReadResponse(bufio.NewReader(guest), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 400 || resp.Header.Get("Content-Type") != "application/problem+json" || !resp.Close ||
		!strings.Contains(string(body), `"reason":"malformed_request"`) || !strings.Contains(string(body), string(BadFieldName)) {
		t.Errorf("answered %+v %q, %v", resp, body, err)
	}
}

func TestOwnAnswer(t *testing.T) {
	guest, c, _ := dial(t, Config{Answer: func(r Reject) []byte { return []byte("no: " + r.Method) }}, nil)
	io.WriteString(guest, "BREW / HTTP/1.1\r\nx\r\n\r\n")
	if all, _ := io.ReadAll(guest); string(all) != "no: BREW" {
		t.Errorf("answered %q", all)
	}
	if r, ok := c.Rejected(); !ok || r.Fault != BadFieldName {
		t.Errorf("rejected %+v, %v", r, ok)
	}
}

func TestSlowHead(t *testing.T) {
	guest, _, _ := dial(t, Config{HeadTimeout: 50 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		claim(t, r)
		io.WriteString(w, "served")
	})
	time.Sleep(100 * time.Millisecond) // waiting for a request to begin is not limited
	io.WriteString(guest, good)
	br := bufio.NewReader(guest)
	if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v, %v", resp, err)
	} else {
		io.ReadAll(resp.Body)
	}
	io.WriteString(guest, "GET / HTTP/1.1\r\nX:")
	if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestServerClosesWhileWaiting(t *testing.T) {
	found, done := make(chan struct{}), make(chan struct{})
	guest, _, srv := dial(t, Config{OnReject: func(Reject) { close(found) }}, func(w http.ResponseWriter, r *http.Request) {
		claim(t, r)
		<-r.Context().Done()
		close(done)
	})
	io.WriteString(guest, good+"nonsense\r\n")
	within(t, "fault", found)
	srv.Close()
	within(t, "end of the request", done)
}

func TestContinue(t *testing.T) {
	for name, head := range map[string]string{
		"fixed":   "Content-Length: 5\r\n",
		"chunked": "Transfer-Encoding: chunked\r\n",
	} {
		guest, _, _ := dial(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
			claim(t, r)
			io.Copy(w, r.Body)
		})
		br := bufio.NewReader(guest)
		for range 2 {
			io.WriteString(guest, "POST / HTTP/1.1\r\nHost: good.test\r\nExpect: 100-continue\r\n"+head+"\r\n")
			line, err := br.ReadString('\n')
			if err != nil || line != "HTTP/1.1 100 Continue\r\n" {
				t.Fatalf("%s: %q, %v", name, line, err)
			}
			br.ReadString('\n')
			body := "hello"
			if name == "chunked" {
				body = "5\r\nhello\r\n0\r\n\r\n"
			}
			io.WriteString(guest, body)
			resp, err := http.ReadResponse(br, nil)
			if err != nil || resp.StatusCode != 200 {
				t.Fatalf("%s: %v, %v", name, resp, err)
			}
			if b, _ := io.ReadAll(resp.Body); string(b) != "hello" {
				t.Errorf("%s: echoed %q", name, b)
			}
		}
	}
}

const upgradeHead = "GET /ws HTTP/1.1\r\nHost: good.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

func TestUpgrade(t *testing.T) {
	for _, early := range []string{"", "\x81\x02hi", strings.Repeat("early", 10000)} {
		guest, _, _ := dial(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
			if h := claim(t, r); h.Upgrade != "websocket" {
				t.Errorf("head %+v", h)
			}
			if early != "" {
				time.Sleep(20 * time.Millisecond) // let it be read ahead
			}
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if err := connOf(r).Raw(); err != nil {
				t.Error(err)
				return
			}
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
			io.Copy(c, c)
		})
		var all []byte
		read := make(chan struct{})
		go func() { all, _ = io.ReadAll(guest); close(read) }()
		io.WriteString(guest, upgradeHead+early)
		io.WriteString(guest, "later\r\n\r\n")
		guest.(*net.TCPConn).CloseWrite()
		within(t, "echo", read)
		if _, echo, _ := strings.Cut(string(all), "\r\n\r\n"); echo != early+"later\r\n\r\n" {
			t.Errorf("echoed %.100q for %.100q", echo, early)
		}
	}
}

// TestUpgradeThatIsNotAgreedTo: what follows is another request, checked like
// any other.
func TestUpgradeThatIsNotAgreedTo(t *testing.T) {
	var targets []string
	guest, _, _ := dial(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		targets = append(targets, claim(t, r).Target)
		time.Sleep(5 * time.Millisecond)
	})
	io.WriteString(guest, upgradeHead+good+upgradeHead+"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
	all, err := io.ReadAll(guest)
	if got := strings.Join(targets, " "); got != "/ws /ok /ws" || err != nil {
		t.Errorf("served %s, %v", got, err)
	}
	if strings.Count(string(all), "HTTP/1.1 200") != 3 || strings.Count(string(all), "HTTP/1.1 400") != 1 {
		t.Errorf("answered %q", all)
	}
}

func TestRawNeedsAnUpgrade(t *testing.T) {
	guest, _, _ := dial(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		claim(t, r)
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		if err := connOf(r).Raw(); err == nil {
			t.Error("a request without Upgrade was given raw bytes")
		}
		c.Close()
	})
	io.WriteString(guest, good+"secret")
	io.ReadAll(guest)
}

func TestClaimOnceAndInOrder(t *testing.T) {
	guest, _, _ := dial(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		forged := r.Clone(r.Context())
		forged.RequestURI = "/2"
		if _, ok := connOf(r).Claim(forged); ok {
			t.Error("a request that is not being served was claimed")
		}
		forged.RequestURI, forged.Host = r.RequestURI, "evil.test"
		if _, ok := connOf(r).Claim(forged); ok {
			t.Error("a request was claimed with another's Host")
		}
		again := r.Clone(r.Context())
		claim(t, r)
		if _, ok := connOf(r).Claim(again); ok {
			t.Error("a request was claimed twice")
		}
		w.Header().Set("Connection", "close")
	})
	io.WriteString(guest, good+good)
	io.ReadAll(guest)
}

func TestBodyFaultIsTold(t *testing.T) {
	guest, _, _ := dial(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		claim(t, r)
		_, err := io.ReadAll(r.Body)
		var e *Error
		if !errors.As(err, &e) || e.Reject.Fault != BadChunk {
			t.Errorf("error = %v", err)
		}
		if rej, ok := connOf(r).Rejected(); !ok || rej != e.Reject {
			t.Errorf("rejected %+v", rej)
		}
		w.WriteHeader(e.Reject.Status())
	})
	io.WriteString(guest, "POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n")
	all, _ := io.ReadAll(guest)
	if !bytes.HasPrefix(all, []byte("HTTP/1.1 400")) || bytes.Count(all, []byte("HTTP/1.1 ")) != 1 {
		t.Errorf("answered %q", all)
	}
}

func TestAuthority(t *testing.T) {
	for _, tt := range []struct {
		scheme, target, host string
		name                 string
		port                 uint16
		ok                   bool
		origin               string
	}{
		{"", "/x?y", "good.test", "good.test", 0, true, "/x?y"},
		{"", "/", "GOOD.Test.", "good.test", 0, true, "/"},
		{"", "/", "good.test:9999", "good.test", 9999, true, "/"},
		{"", "/", "good.test:", "good.test", 0, true, "/"},
		{"", "/", "[::1]", "", 0, false, "/"},
		{"", "/", "127.0.0.1", "", 0, false, "/"},
		{"", "/", "good.test%00.evil", "", 0, false, "/"},
		{"", "/", "good.test:99999", "", 0, false, "/"},
		{"", "/", "good..test", "", 0, false, "/"},
		{"", "https://good.test/x", "good.test", "good.test", 0, true, "/x"},
		{"", "HTTPS://GOOD.test:443", "good.test", "good.test", 0, true, "/"},
		{"", "https://good.test?q", "good.test:443", "good.test", 443, true, "/?q"},
		{"", "https://evil.test/x", "good.test", "good.test", 0, false, "/x"},
		{"", "https://good.test/x", "evil.test", "evil.test", 0, false, "/x"},
		{"", "https://user@good.test/x", "good.test", "good.test", 0, false, "/x"},
		{"", "https://good.test:444/x", "good.test", "good.test", 0, false, "/x"},
		{"", "http://good.test/x", "good.test", "good.test", 0, false, "/x"},
		{"http", "http://good.test:80/x", "good.test", "good.test", 0, true, "/x"},
		{"http", "https://good.test/x", "good.test", "good.test", 0, false, "/x"},
		{"", "https://good.test\\@evil.test/x", "good.test", "good.test", 0, false, "/x"},
	} {
		guest := newScript("GET "+tt.target+" HTTP/1.1\r\nHost: "+tt.host+"\r\n\r\n", 1<<20)
		var h Head
		_, srv := serve(guest, Config{Scheme: tt.scheme}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h = claim(t, r) }))
		within(t, "end", guest.closed)
		srv.Close()
		if string(h.Authority.Host) != tt.name || h.Authority.Port != tt.port || h.AuthorityOK != tt.ok ||
			h.Origin() != tt.origin || h.Target != tt.target || h.Host != tt.host || h.Absolute != (tt.target[0] != '/') {
			t.Errorf("%s, Host %s: %+v, origin %s", tt.target, tt.host, h, h.Origin())
		}
	}
	if o := (Head{Method: "OPTIONS", Target: "http://good.test", origin: 16}).Origin(); o != "*" {
		t.Errorf("OPTIONS of a server: origin %q", o)
	}
	if p := (Head{Target: "/a%2f?b?c"}).Path(); p != "/a%2f" {
		t.Errorf("path %q", p)
	}
}

// A loop is a guest that sends the same bytes n times.
type loop struct {
	script
	text []byte
	left int
	off  int
}

func (l *loop) Read(p []byte) (int, error) {
	if l.left == 0 {
		return 0, io.EOF
	}
	n := copy(p, l.text[l.off:])
	if l.off += n; l.off == len(l.text) {
		l.off = 0
		l.left--
	}
	return n, nil
}

func (l *loop) Write(p []byte) (int, error) { return len(p), nil }

const browserHead = "GET /v1/models?limit=20 HTTP/1.1\r\nHost: good.test\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n" +
	"Authorization: Bearer $MSB_API_KEY\r\nContent-Type: application/json\r\nX-Request-Id: 0123456789abcdef0123456789abcdef\r\n\r\n"

// TestAllocations: the target is the only thing that a request costs.
func TestAllocations(t *testing.T) {
	c := NewConn(&loop{text: []byte(browserHead), left: 1 << 30}, Config{})
	buf := make([]byte, 4096)
	n := testing.AllocsPerRun(1000, func() {
		for c.state = stateHead; ; {
			c.Read(buf)
			if len(c.pend[0]) == 0 {
				return
			}
		}
	})
	if n > 1 {
		t.Errorf("%v allocations for a request", n)
	}
}

func BenchmarkConn(b *testing.B) {
	for name, text := range map[string]string{
		"head":    browserHead,
		"fixed":   "POST /p HTTP/1.1\r\nHost: good.test\r\nContent-Length: 1048576\r\n\r\n" + strings.Repeat("x", 1<<20),
		"chunked": "POST /p HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("8000\r\n"+strings.Repeat("x", 32<<10)+"\r\n", 32) + "0\r\n\r\n",
	} {
		b.Run(name, func(b *testing.B) {
			c := NewConn(&loop{text: []byte(text), left: b.N}, Config{})
			buf := make([]byte, 32<<10)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.ResetTimer(); ; {
				if _, err := c.Read(buf); err != nil {
					return
				}
			}
		})
	}
}

// BenchmarkRoundTrip compares net/http's server alone with the same behind a
// Conn, one request at a time over loopback.
func BenchmarkRoundTrip(b *testing.B) {
	run := func(b *testing.B, guest net.Conn) {
		b.ReportAllocs()
		buf := make([]byte, 4096)
		for b.Loop() {
			io.WriteString(guest, browserHead)
			for n := 0; !bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")); {
				k, err := guest.Read(buf[n:])
				if n += k; err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.Run("net/http", func(b *testing.B) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
		go srv.Serve(l)
		defer srv.Close()
		guest, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		run(b, guest)
	})
	b.Run("reframe", func(b *testing.B) {
		guest, _, _ := dial(b, Config{}, func(w http.ResponseWriter, r *http.Request) { connOf(r).Claim(r) })
		run(b, guest)
	})
}
