package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/splice"
	"github.com/cutoutdev/cutout/internal/testnet"
)

func TestRefusedFlow(t *testing.T) {
	dead := netip.MustParseAddrPort("93.184.216.77:8080")
	tests := []struct {
		name   string
		dst    netip.AddrPort
		reason policy.Reason
	}{
		{"loopback", netip.MustParseAddrPort("127.0.0.1:80"), policy.AddressDenied},
		{"metadata", netip.MustParseAddrPort("169.254.169.254:80"), policy.AddressDenied},
		{"mapped loopback", netip.MustParseAddrPort("[::ffff:127.0.0.1]:80"), policy.AddressDenied},
		{"NAT64 of private", netip.MustParseAddrPort("[64:ff9b::a00:1]:443"), policy.AddressDenied},
		{"nobody listens", dead, policy.UpstreamFailed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, "h1")
			if _, err := w.connect(context.Background(), tt.dst); err != errRefused {
				t.Errorf("connect: %v, want %v", err, errRefused)
			}
			w.expect(audit.Denied, tt.reason)
			if tt.reason == policy.AddressDenied && len(w.dialed) > 0 {
				t.Errorf("dialled %v", w.dialed)
			}
		})
	}
}

// The dead upstream of a pinned secret's host refuses the SYN; a dead TLS
// server behind a live port fails the handshake.
func TestDeadUpstream(t *testing.T) {
	w := newWorld(t, "h2")
	delete(w.to, goodAddr)
	if _, err := w.connect(context.Background(), goodAddr); err != errRefused {
		t.Errorf("connect: %v, want %v", err, errRefused)
	}
	raw := must(testnet.StartRaw(testnet.RawConfig{Serve: func(c net.Conn) { c.Close() }}))
	t.Cleanup(func() { raw.Close() })
	w.to[goodAddr] = raw.Addr()
	c, err := w.connect(context.Background(), goodAddr)
	if err != nil {
		t.Fatal(err)
	}
	cfg := w.guestTLS()
	cfg.ServerName = "good.test"
	if err := tls.Client(c, cfg).Handshake(); err == nil {
		t.Error("handshake succeeded")
	}
	w.expect(audit.Denied, policy.UpstreamFailed)
}

// --connect-to makes the pin and exempts its target from the address rules.
func TestConnectTo(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		synthetic := netip.MustParseAddrPort("198.18.0.1:443")
		w := newWorld(t, protocol, func(w *world) {
			w.cfg.ConnectTo = func(dst netip.AddrPort) (netip.AddrPort, hostname.Name, bool) {
				return w.good.Addr(), "good.test", dst == synthetic
			}
			w.to[w.good.Addr()] = w.good.Addr()
		})
		w.names["good.test:443"] = synthetic
		if a := w.get(w.client(), "https://good.test/echo", placeholder); a.status != 200 {
			t.Fatalf("answer is %d %s %v", a.status, a.body, a.err)
		}
		if r := w.last(w.good, 1); r.Header.Get("Authorization") != "Bearer "+value {
			t.Errorf("upstream got %q", r.Header)
		}
		if _, err := w.connect(context.Background(), netip.MustParseAddrPort("198.18.0.1:80")); err != errRefused {
			t.Errorf("another port: %v", err)
		}
	})
}

// A server that speaks first is heard at once where it was dialled at once,
// and after the short silence where the port is a secret's.
func TestServerFirst(t *testing.T) {
	for _, port := range []uint16{22, 443} {
		t.Run(fmt.Sprint(port), func(t *testing.T) {
			w := newWorld(t, "h1")
			raw := must(testnet.StartRaw(testnet.RawConfig{Banner: "SSH-2.0-test\r\n", Echo: true}))
			t.Cleanup(func() { raw.Close() })
			dst := netip.AddrPortFrom(netip.MustParseAddr("93.184.216.50"), port)
			w.to[dst] = raw.Addr()
			begin := time.Now()
			c, err := w.connect(context.Background(), dst)
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(5 * time.Second))
			r := bufio.NewReader(c)
			if line, err := r.ReadString('\n'); line != "SSH-2.0-test\r\n" {
				t.Fatalf("banner is %q, %v", line, err)
			}
			if took := time.Since(begin); port == 22 && took > silence/2 {
				t.Errorf("the banner took %v", took)
			}
			io.WriteString(c, "hello\r\n")
			if line, err := r.ReadString('\n'); line != "hello\r\n" {
				t.Errorf("echo is %q, %v", line, err)
			}
		})
	}
}

// TLS that is not opened passes as it is, to the server's own certificate.
func TestSplicedTLS(t *testing.T) {
	tests := []struct {
		name   string
		option option
		server string // SNI
	}{
		{"not a secret's host", func(*world) {}, "evil.test"},
		{"bypassed", func(w *world) {
			w.cfg.Intercept = All
			w.cfg.Bypass = []hostname.Pattern{must(hostname.ParsePattern("evil.test"))}
		}, "evil.test"},
		{"interception off", func(w *world) { w.cfg.Intercept = Off }, "evil.test"},
		{"no server name", func(w *world) { w.cfg.Intercept = All }, ""},
	}
	protocols(t, func(t *testing.T, protocol string) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				w := newWorld(t, protocol, tt.option)
				c, err := w.connect(context.Background(), evilAddr)
				if err != nil {
					t.Fatal(err)
				}
				cfg := w.guestTLS()
				cfg.ServerName, cfg.InsecureSkipVerify = tt.server, true
				conn := tls.Client(c, cfg)
				if err := conn.Handshake(); err != nil {
					t.Fatal(err)
				}
				if issuer := conn.ConnectionState().PeerCertificates[0]; issuer.CheckSignatureFrom(w.ca.Root) != nil {
					t.Errorf("certificate is issued by %s", issuer.Issuer)
				}
				w.expect(audit.Spliced, policy.None)
			})
		}
	})
}

// The guest gets the protocol that the upstream chose.
func TestProtocolMirrored(t *testing.T) {
	tests := []struct {
		upstream string
		offer    []string
		want     string
	}{
		{"h1", []string{"h2", "http/1.1"}, "http/1.1"},
		{"h2", []string{"h2", "http/1.1"}, "h2"},
		{"h2", []string{"http/1.1", "h2", "h3"}, "h2"}, // Go's server prefers h2
		{"h1", nil, ""},
		{"h1", []string{"http/1.1"}, "http/1.1"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.upstream, tt.offer), func(t *testing.T) {
			w := newWorld(t, tt.upstream)
			c, err := w.connect(context.Background(), goodAddr)
			if err != nil {
				t.Fatal(err)
			}
			cfg := w.guestTLS()
			cfg.ServerName, cfg.NextProtos = "good.test", tt.offer
			conn := tls.Client(c, cfg)
			if err := conn.Handshake(); err != nil {
				t.Fatal(err)
			}
			if got := conn.ConnectionState().NegotiatedProtocol; got != tt.want {
				t.Errorf("guest speaks %q, want %q", got, tt.want)
			}
		})
	}
}

// TLS below 1.2 is refused on both sides. A17.
func TestOldTLS(t *testing.T) {
	w := newWorld(t, "h1")
	c, err := w.connect(context.Background(), goodAddr)
	if err != nil {
		t.Fatal(err)
	}
	cfg := w.guestTLS()
	cfg.ServerName, cfg.MinVersion, cfg.MaxVersion = "good.test", tls.VersionTLS10, tls.VersionTLS11
	if err := tls.Client(c, cfg).Handshake(); err == nil {
		t.Error("the guest's TLS 1.1 was accepted")
	}
	cert := must(w.ca.Cert("good.test"))
	u := w.start(testnet.UpstreamConfig{Cert: &cert, TLS: &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}})
	w.to[goodAddr] = u.Addr()
	if a := w.get(w.client(), "https://good.test/echo", placeholder); a.err == nil {
		t.Errorf("the upstream's TLS 1.1 was accepted: %d", a.status)
	}
	if len(u.Requests()) > 0 {
		t.Error("upstream got a request")
	}
}

// Server names that are not what they seem. A11.
func TestServerName(t *testing.T) {
	w := newWorld(t, "h1")
	for _, name := range []string{"good.test\x00.evil.test", "good..test", "*.test", strings.Repeat("a.", 130) + "test"} {
		c, err := w.connect(context.Background(), goodAddr)
		if err != nil {
			t.Fatal(err)
		}
		cfg := w.guestTLS()
		cfg.ServerName, cfg.InsecureSkipVerify = name, true
		if err := tls.Client(c, cfg).Handshake(); err == nil {
			t.Errorf("server name %q was accepted", name)
		}
	}
	w.expect(audit.Denied, policy.MalformedRequest)

	w.names["GOOD.TEST:443"] = goodAddr
	if a := w.get(w.client(), "https://GOOD.TEST/echo", placeholder); a.status != 200 {
		t.Errorf("upper case: %d %s %v", a.status, a.body, a.err)
	}
	if r := w.last(w.good, 1); r.ServerName != "good.test" || r.Host != "good.test" {
		t.Errorf("upstream got SNI %q, host %q", r.ServerName, r.Host)
	}
}

func TestSpliceHalfClose(t *testing.T) {
	w := newWorld(t, "h1")
	dst := w.listen(func(c net.Conn) {
		text, _ := io.ReadAll(c) // to the guest's FIN
		io.WriteString(c, "got "+string(text))
		c.Close()
	})
	c, err := w.connect(context.Background(), dst)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "all of it")
	c.(*net.TCPConn).CloseWrite()
	if text, err := io.ReadAll(c); string(text) != "got all of it" || err != nil {
		t.Errorf("guest got %q, %v", text, err)
	}
}

func TestSpliceReset(t *testing.T) {
	w := newWorld(t, "h1")
	dst := w.listen(func(c net.Conn) {
		io.ReadFull(c, make([]byte, 4))
		splice.Reset(c)
	})
	c, err := w.connect(context.Background(), dst)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "\x01\x02\x03\x04")
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("guest read %d, %v, want a reset", n, err)
	}
}

// Plain HTTP. A2 and the like.
func TestPlain(t *testing.T) {
	good80, evil80 := netip.MustParseAddrPort("93.184.216.34:80"), netip.MustParseAddrPort("93.184.216.66:80")
	start := func(t *testing.T) (*world, *testnet.Upstream) {
		w := newWorld(t, "h1")
		u := w.start(testnet.UpstreamConfig{})
		w.serve("good.test", good80, u.Addr())
		w.serve("evil.test", evil80, u.Addr())
		return w, u
	}
	t.Run("secret's host, placeholder", func(t *testing.T) {
		w, u := start(t)
		c := w.client()
		w.refused(w.get(c, "http://good.test/echo", placeholder), 403, policy.PlainHTTP)
		if len(u.Requests()) > 0 {
			t.Error("the request was sent on")
		}
		if a := w.get(c, "http://good.test/ok", "own"); a.status != 200 {
			t.Errorf("a request without placeholder: %d %s %v", a.status, a.body, a.err)
		}
	})
	t.Run("attacker's address, secret's Host", func(t *testing.T) {
		w, u := start(t)
		a := w.do(w.client(), "GET", "http://evil.test/echo", nil, host("good.test"))
		w.refused(a, 403, policy.NotPinned)
		if len(u.Requests()) > 0 {
			t.Error("the request was sent on")
		}
	})
	t.Run("binding port, secret's Host", func(t *testing.T) {
		w, u := start(t)
		dst := netip.MustParseAddrPort("93.184.216.99:443")
		w.to[dst] = u.Addr()
		w.names["stray.test:443"] = dst
		a := w.do(w.client(), "GET", "http://stray.test:443/echo", nil, host("good.test"))
		w.refused(a, 403, policy.HostNotAllowed) // in clear the binding's port is 80
		if w.wasDialed(dst) {
			t.Error("the address was dialled")
		}
	})
	t.Run("secret's address, other Host", func(t *testing.T) {
		w, _ := start(t)
		w.refused(w.do(w.client(), "GET", "http://good.test/echo", nil, host("evil.test")), 403, policy.HostNotAllowed)
	})
	t.Run("nothing to do with a secret", func(t *testing.T) {
		w, u := start(t)
		a := w.get(w.client(), "http://evil.test/echo", placeholder)
		if a.status != 200 || !strings.Contains(a.body, placeholder) {
			t.Errorf("answer is %d %s %v", a.status, a.body, a.err)
		}
		if r := w.last(u, 1); strings.Contains(r.Text(), value) {
			t.Errorf("upstream got the value: %s", r.Text())
		}
	})
	t.Run("second request names the secret's host", func(t *testing.T) {
		w, u := start(t)
		c := w.client()
		for _, h := range []string{"evil.test", "good.test"} {
			w.do(c, "GET", "http://evil.test/echo", nil, host(h))
		}
		for _, r := range u.Requests() {
			if strings.Contains(r.Text(), value) {
				t.Errorf("upstream got the value: %s", r.Text())
			}
		}
	})
}

func TestFlowLimit(t *testing.T) {
	w := newWorld(t, "h1")
	w.proxy.flows.Add(maxFlows)
	if _, err := w.connect(context.Background(), goodAddr); err != errRefused {
		t.Errorf("connect: %v", err)
	}
	w.expect(audit.Denied, policy.LimitReached)
}

// listen serves one connection to the address that it returns.
func (w *world) listen(serve func(net.Conn)) netip.AddrPort {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	w.root.Cleanup(func() { l.Close() })
	go func() {
		if c, err := l.Accept(); err == nil {
			serve(c)
		}
	}()
	dst := netip.MustParseAddrPort("93.184.216.50:7000")
	w.to[dst] = netip.MustParseAddrPort(l.Addr().String())
	return dst
}
