package testnet

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func client(ca *CA, addr netip.AddrPort, http2 bool) *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(!http2)
	p.SetHTTP2(http2)
	return &http.Client{
		Transport: &http.Transport{
			Protocols:       p,
			TLSClientConfig: &tls.Config{RootCAs: ca.Pool()},
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", addr.String())
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func TestUpstreamRecords(t *testing.T) {
	ca, err := NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Cert("good.test")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		http2 bool
		proto string
	}{{"h1", false, "HTTP/1.1"}, {"h2", true, "HTTP/2.0"}} {
		t.Run(tt.name, func(t *testing.T) {
			u, err := StartUpstream(UpstreamConfig{Cert: &cert})
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			c := client(ca, u.Addr(), tt.http2)
			defer c.CloseIdleConnections()
			for range 2 { // the second request is on the same connection
				r, _ := http.NewRequest("POST", "https://good.test/echo?a=b", strings.NewReader("the body"))
				r.Header.Set("X-B", "2")
				r.Header.Set("X-A", "1")
				resp, err := c.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				text, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if !strings.Contains(string(text), "X-A: 1") || !strings.HasSuffix(string(text), "the body") {
					t.Errorf("echo = %q", text)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			got, err := u.Wait(ctx, 2)
			if err != nil {
				t.Fatal(err)
			}
			for _, q := range got {
				if q.Proto != tt.proto || q.Method != "POST" || q.Target != "/echo?a=b" || q.Host != "good.test" ||
					q.ServerName != "good.test" || !q.TLS || string(q.Body) != "the body" || q.BodySize != 8 || q.BodyErr != "" {
					t.Errorf("recorded %+v", q)
				}
				if !tt.http2 && (len(q.Lines) < 4 || q.Lines[0] != "Host: good.test") {
					t.Errorf("lines = %q", q.Lines)
				}
			}
			if n := u.Counts(); n.Accepted != 1 || n.Handshakes != 1 {
				t.Errorf("counts = %+v", n)
			}
		})
	}
}

func TestEchoEverywhere(t *testing.T) {
	u, err := StartUpstream(UpstreamConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for _, path := range []string{"", ".json", "/headers", "/cookie", "/location", "/status", "/trailer", "/early", "//x/../y"} {
		c, err := net.Dial("tcp", u.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET /echo"+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Needle: hay-7\r\n\r\n")
		text, _ := io.ReadAll(c)
		if !bytes.Contains(text, []byte("hay-7")) {
			t.Errorf("/echo%s = %q", path, text)
		}
		c.Close()
	}
}

func TestBadCertificates(t *testing.T) {
	ca, err := NewCA()
	if err != nil {
		t.Fatal(err)
	}
	for name, issue := range map[string]func() (tls.Certificate, error){
		"expired":     func() (tls.Certificate, error) { return ca.Expired("good.test") },
		"self-signed": func() (tls.Certificate, error) { return ca.SelfSigned("good.test") },
		"wrong name":  func() (tls.Certificate, error) { return ca.Cert("evil.test") },
	} {
		cert, err := issue()
		if err != nil {
			t.Fatal(err)
		}
		u, err := StartUpstream(UpstreamConfig{Cert: &cert})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client(ca, u.Addr(), false).Get("https://good.test/ok"); err == nil {
			t.Errorf("%s: a client accepted it", name)
		}
		u.Close()
	}
}

func TestRaw(t *testing.T) {
	r, err := StartRaw(RawConfig{Banner: "220 hi\r\n", Reply: "250 ok\r\n"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 8)
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "220 hi\r\n" {
		t.Fatalf("banner %q, %v", buf, err)
	}
	io.WriteString(c, "EHLO\r\n")
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "250 ok\r\n" {
		t.Fatalf("reply %q, %v", buf, err)
	}
	if got := r.Received(); !slices.Equal(got, []string{"EHLO\r\n"}) {
		t.Errorf("received %q", got)
	}
}

func TestDNS(t *testing.T) {
	a4, a6 := netip.MustParseAddr("127.0.0.9"), netip.MustParseAddr("::9")
	d, err := StartDNS(map[string]Record{
		"good.test":  {Addrs: []netip.Addr{a4, a6}},
		"alias.test": {CNAME: "Good.test."},
		"big.test":   {Addrs: []netip.Addr{a4}, Truncate: true},
		"fail.test":  {RCode: dnsmessage.RCodeServerFailure},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, d.Addr().String())
	}}
	for name, want := range map[string]int{"good.test.": 2, "ALIAS.test.": 2, "big.test.": 1, "none.test.": 0, "fail.test.": 0} {
		got, err := r.LookupNetIP(t.Context(), "ip", name)
		if len(got) != want {
			t.Errorf("%s = %v, %v", name, got, err)
		}
	}
	tcp := slices.ContainsFunc(d.Queries(), func(q Query) bool { return q.TCP && q.Name == "big.test" })
	if !tcp {
		t.Error("the truncated answer was not asked for again over TCP")
	}
}
