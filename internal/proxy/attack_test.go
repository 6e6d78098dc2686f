package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// Early hints and the 100 that net/http's server writes by itself come from
// two goroutines, and both go to the guest. B10.
func TestEarlyHintsBesideContinue(t *testing.T) {
	w := newWorld(t, "h1")
	w.goodIs(func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n"+strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </"+strings.Repeat("x", 1000)+">\r\n\r\n", 20))
			io.Copy(io.Discard, req.Body)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	c := w.raw1()
	for range 20 {
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: good.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		for early := 0; ; early++ {
			resp, err := http.ReadResponse(c.r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode == 100 {
				io.WriteString(c, "hello")
			}
			if resp.StatusCode >= 200 {
				io.Copy(io.Discard, resp.Body)
				break
			}
		}
	}
}

// The address of a secret's host, whatever host a plain request names: its
// answers are searched, so it may not change protocol nor be compressed or
// sliced, DESIGN §6.
func TestPlainToSecretsAddress(t *testing.T) {
	w := newWorld(t, "h1")
	var asked http.Header
	u := w.start(testnet.UpstreamConfig{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked = r.Header.Clone()
		if r.Header.Get("Upgrade") == "" {
			return
		}
		c, _, _ := http.NewResponseController(rw).Hijack()
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\nX-Last: "+value+"\r\n\r\nlast seen: "+value)
	})})
	plain := netip.AddrPortFrom(goodAddr.Addr(), 80)
	w.to[plain] = u.Addr()
	for _, extra := range []string{"Connection: Upgrade\r\nUpgrade: x\r\n", "Range: bytes=0-9\r\nAccept-Encoding: exotic\r\n"} {
		c, err := w.connect(context.Background(), plain)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: other.test\r\n"+extra+"\r\n")
		buf := make([]byte, 64<<10)
		n, _ := io.ReadAtLeast(c, buf, 1)
		c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		m, _ := io.ReadFull(c, buf[n:])
		w.clean(string(buf[:n+m]))
		c.Close()
	}
	if asked.Get("Range") == "bytes=0-9" || asked.Get("Accept-Encoding") != "identity" {
		t.Errorf("upstream got %q", asked)
	}
}

// An answer that nobody reads is held in part only, however many of them
// there are: DESIGN §7 gives all buffers of a sandbox 192 MiB. B15.
func TestUnreadAnswers(t *testing.T) {
	const conns, perConn = 60, 8
	w := newWorld(t, "h2", handler(func(rw http.ResponseWriter, r *http.Request) {
		io.Copy(rw, io.LimitReader(zeroes{}, 64<<20))
	}))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range conns {
		c := w.raw2()
		for i := range perConn {
			c.request(uint32(2*i+1), ":method", "GET", ":scheme", "https", ":path", "/", ":authority", "good.test")
		}
	}
	time.Sleep(3 * time.Second)
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	// With the largest windows it is 5 MiB each; both ends run here too.
	if each := grown / conns; each > 3<<20 {
		t.Errorf("%d connections hold %d KiB each", conns, each>>10)
	} else {
		t.Logf("%d connections hold %d KiB each", conns, each>>10)
	}
}

// Requests that are never answered: streams are many times as many as flows,
// and each holds its head. B14, B15.
func TestUnansweredRequests(t *testing.T) {
	const conns, perConn = 22, 100
	release := make(chan bool)
	w := newWorld(t, "h2", handler(func(rw http.ResponseWriter, r *http.Request) { <-release }))
	t.Cleanup(func() { close(release) })
	big := strings.Repeat("x", 15<<10)
	for range conns {
		c := w.raw2()
		for i := range perConn {
			c.request(uint32(2*i+1), ":method", "GET", ":scheme", "https", ":path", "/", ":authority", "good.test", "x-a", big)
		}
		go io.Copy(io.Discard, c.conn)
	}
	for range 200 {
		if len(w.found(audit.Refused)) >= conns*perConn-maxRequests {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if n := w.proxy.requests.Load(); n > maxRequests {
		t.Errorf("%d requests are in progress", n)
	}
	w.expect(audit.Refused, policy.LimitReached)
}

// What net/http takes for each body over HTTP/2 counts: a guest cannot begin
// any number of them. B15.
func TestManyBodies(t *testing.T) {
	w := newWorld(t, "h2")
	w.proxy.held.limit = 2*maxFrame + 100
	c := w.raw2()
	for id := uint32(1); id < 4; id += 2 {
		c.open(id)
	}
	for deadline := time.Now().Add(5 * time.Second); w.proxy.held.used.Load() < 2*maxFrame && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	c.open(5)
	if got := c.status(5); got != "503" {
		t.Errorf("a third body: status %q", got)
	}
	c.open(7, "content-length", "5")
	c.framer.WriteData(7, true, []byte("hello"))
	if got := c.status(7); got != "200" {
		t.Errorf("a short body beside them: status %q", got)
	}
}
