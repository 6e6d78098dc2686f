package attack

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/ca"
	"github.com/cutoutdev/cutout/internal/dns"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
	"github.com/cutoutdev/cutout/internal/pin"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/proxy"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// V is the value, P its placeholder.
const (
	V = "v4lu3-0f-the-c0rpus-s3cret-55667788"
	P = "$MSB_API_KEY"
)

// The corpus's internet: public addresses, which lead to loopback.
var (
	goodAddr  = netip.MustParseAddr("93.184.216.34")
	evilAddr  = netip.MustParseAddr("93.184.216.66")
	strayAddr = netip.MustParseAddr("93.184.216.99") // resolved for nobody
)

// A boundary is the whole of it: a guest's network stack, the boundary's, its
// resolver and its proxy, and the servers behind them.
type boundary struct {
	t        *testing.T
	protocol string // h1 or h2
	guest    *netstacktest.Guest
	store    *secret.Store
	pins     *pin.Table
	ca       *testnet.CA
	leafs    *ca.Authority
	dns      *testnet.DNS
	good     *testnet.Upstream
	evil     *testnet.Upstream
	plain    *testnet.Upstream
	cfg      proxy.Config

	mu     sync.Mutex
	read   bytes.Buffer // everything that the guest was sent in answers
	events []audit.Event
	dialed []netip.AddrPort
	to     map[netip.AddrPort]netip.AddrPort
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// start makes a boundary; change may alter its configuration.
func start(t *testing.T, protocol string, change func(*boundary)) *boundary {
	b := &boundary{t: t, protocol: protocol, to: make(map[netip.AddrPort]netip.AddrPort)}
	b.ca, b.store = must(testnet.NewCA()), must(secret.NewStore(0))
	t.Cleanup(func() { b.store.Close() })
	b.good, b.evil, b.plain = b.upstream(nil, "good.test"), b.upstream(nil, "evil.test"), b.upstream(nil)
	b.dns = must(testnet.StartDNS(map[string]testnet.Record{
		"good.test": {Addrs: []netip.Addr{goodAddr}},
		"evil.test": {Addrs: []netip.Addr{evilAddr}},
	}))
	t.Cleanup(func() { b.dns.Close() })
	for addr, u := range map[netip.Addr]*testnet.Upstream{goodAddr: b.good, evilAddr: b.evil, strayAddr: b.good} {
		b.to[netip.AddrPortFrom(addr, 443)] = u.Addr()
		b.to[netip.AddrPortFrom(addr, 8443)] = u.Addr()
		b.to[netip.AddrPortFrom(addr, 80)] = b.plain.Addr()
	}
	log := must(audit.Create(filepath.Join(t.TempDir(), "audit.jsonl"), audit.Config{Notify: b.note}))
	t.Cleanup(func() { log.Close() })
	network := &policy.Network{Local: func(netip.Addr) bool { return false }}
	set := must(secret.NewSet([]*secret.Secret{b.secret("API_KEY", P, V, "good.test")}))
	b.leafs = must(ca.New(ca.Config{Allow: func(n hostname.Name) bool { return b.cfg.Intercept == proxy.All || set.HasHost(n) }}))
	b.pins = &pin.Table{Important: set.HasHost}
	b.cfg = proxy.Config{
		Secrets: func() *secret.Set { return set }, Store: b.store, CA: b.leafs, Pins: b.pins,
		Audit: log, Network: network, Dial: b.dialUpstream, Roots: b.ca.Pool(),
	}
	if change != nil {
		change(b)
	}
	px := must(proxy.New(b.cfg))
	b.guest, _ = netstacktest.Start(t, netstack.Config{
		DNS: &dns.Interceptor{Resolvers: []netip.AddrPort{b.dns.Addr()}, Pins: b.pins, Network: network},
		TCP: func(ctx context.Context, r *netstack.TCPRequest) {
			px.ServeTCP(ctx, proxy.Flow{Src: r.Src, Dst: r.Dst, Accept: r.Accept, Refuse: r.Refuse})
		},
	})
	return b
}

func (b *boundary) secret(name, placeholder, value, host string) *secret.Secret {
	r, w := must2(os.Pipe())
	defer r.Close()
	io.WriteString(w, value)
	w.Close()
	return &secret.Secret{
		Name: name, Placeholder: placeholder, Value: must(b.store.ReadValue(int(r.Fd()), len(value))),
		Hosts: []secret.Host{{Pattern: must(hostname.ParsePattern(host)), Port: 443}},
	}
}

func must2[T, U any](v T, u U, err error) (T, U) {
	if err != nil {
		panic(err)
	}
	return v, u
}

// upstream starts a server of the boundary's protocol; without a name it is
// plain.
func (b *boundary) upstream(h http.Handler, names ...string) *testnet.Upstream {
	cfg := testnet.UpstreamConfig{Handler: h, HTTP1: b.protocol == "h1", HTTP2: b.protocol == "h2"}
	if len(names) > 0 {
		cert := must(b.ca.Cert(names...))
		cfg.Cert = &cert
	}
	return b.serve(cfg)
}

func (b *boundary) serve(cfg testnet.UpstreamConfig) *testnet.Upstream {
	u := must(testnet.StartUpstream(cfg))
	b.t.Cleanup(func() { u.Close() })
	return u
}

// answer makes good.test answer by h.
func (b *boundary) answer(h http.HandlerFunc) {
	b.good = b.upstream(h, "good.test")
	b.to[netip.AddrPortFrom(goodAddr, 443)] = b.good.Addr()
}

func (b *boundary) dialUpstream(ctx context.Context, dst netip.AddrPort) (net.Conn, error) {
	b.mu.Lock()
	b.dialed = append(b.dialed, dst)
	real, ok := b.to[dst]
	b.mu.Unlock()
	if !ok {
		return nil, errors.New("nobody is there")
	}
	return new(net.Dialer).DialContext(ctx, "tcp", real.String())
}

func (b *boundary) note(e audit.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, e)
}

// recorded reports whether an event with reason was, or soon is, on record.
func (b *boundary) recorded(reason policy.Reason) bool {
	for range 50 {
		b.mu.Lock()
		found := slices.ContainsFunc(b.events, func(e audit.Event) bool { return e.Reason == reason })
		b.mu.Unlock()
		if found {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

func (b *boundary) wasDialed(addr netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.dialed, func(a netip.AddrPort) bool { return a.Addr() == addr })
}

// received is everything that any upstream got.
func (b *boundary) received() string {
	var all strings.Builder
	for _, u := range []*testnet.Upstream{b.good, b.evil, b.plain} {
		for _, r := range u.Requests() {
			all.WriteString(r.Text())
		}
	}
	return all.String()
}

// A target is where and as whom the guest connects.
type target struct {
	addr netip.Addr // zero: what name resolves to
	port uint16     // 0: 443
	name string     // SNI; "": good.test, "-": none
	tls  *tls.Config
}

// dial opens a TCP connection from the guest.
func (b *boundary) dial(to target) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if !to.addr.IsValid() {
		name := to.name
		if name == "" {
			name = "good.test"
		}
		addrs, err := b.guest.Resolve(ctx, name)
		if err != nil {
			return nil, err
		}
		to.addr = addrs[0]
	}
	if to.port == 0 {
		to.port = 443
	}
	c, err := b.guest.Dial(ctx, "tcp", netip.AddrPortFrom(to.addr, to.port))
	if err == nil {
		c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return c, err
}

// secure opens a TLS connection from the guest.
func (b *boundary) secure(to target) (*tls.Conn, error) {
	c, err := b.dial(to)
	if err != nil {
		return nil, err
	}
	cfg := to.tls.Clone()
	if cfg == nil {
		cfg = &tls.Config{}
	}
	if cfg.RootCAs == nil {
		cfg.RootCAs = x509.NewCertPool()
		cfg.RootCAs.AppendCertsFromPEM(b.leafs.CertPEM())
	}
	switch cfg.ServerName = to.name; to.name {
	case "":
		cfg.ServerName = "good.test"
	case "-":
		cfg.ServerName, cfg.InsecureSkipVerify = "", true
	}
	if cfg.NextProtos == nil {
		cfg.NextProtos = map[string][]string{"h1": {"http/1.1"}, "h2": {"h2"}}[b.protocol]
	}
	conn := tls.Client(c, cfg)
	if err := conn.Handshake(); err != nil {
		c.Close()
		return nil, err
	}
	return conn, nil
}

// An outcome is what the guest got for one request.
type outcome struct {
	status int    // 0: no answer
	text   string // head and body
	err    error
}

// reason is the one in a refusal.
func (o outcome) reason() policy.Reason {
	_, rest, _ := strings.Cut(o.text, `"reason":"`)
	reason, _, _ := strings.Cut(rest, `"`)
	return policy.Reason(reason)
}

func (b *boundary) got(o outcome) outcome {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read.WriteString(o.text)
	return o
}

// raw writes bytes on a connection and reads n answers.
func (b *boundary) raw(c net.Conn, text string, n int) []outcome {
	go io.WriteString(c, text)
	var out []outcome
	for r := bufio.NewReader(c); len(out) < n; {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			out = append(out, outcome{err: err})
			continue
		}
		body, err := io.ReadAll(resp.Body)
		var all strings.Builder
		fmt.Fprintln(&all, resp.Status)
		resp.Header.Write(&all)
		all.Write(body)
		resp.Trailer.Write(&all)
		out = append(out, b.got(outcome{resp.StatusCode, all.String(), err}))
	}
	return out
}

// head writes one request of a method, path, authority and further fields, in
// the boundary's protocol, and reads the answer.
func (b *boundary) request(c net.Conn, method, path, authority string, fields ...string) outcome {
	if b.protocol == "h1" {
		var text strings.Builder
		fmt.Fprintf(&text, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, authority)
		for i := 0; i < len(fields); i += 2 {
			fmt.Fprintf(&text, "%s: %s\r\n", fields[i], fields[i+1])
		}
		text.WriteString("\r\n")
		return b.raw(c, text.String(), 1)[0]
	}
	head := []string{":method", method, ":scheme", "https", ":path", path, ":authority", authority}
	for i := 0; i < len(fields); i += 2 {
		head = append(head, strings.ToLower(fields[i]), fields[i+1])
	}
	f := b.frames(c)
	f.head(1, true, head...)
	return f.outcome(1)
}

// Frames is an HTTP/2 connection, frame by frame.
type frames struct {
	*http2.Framer
	b     *boundary
	block bytes.Buffer
	enc   *hpack.Encoder
}

func (b *boundary) frames(c net.Conn) *frames {
	io.WriteString(c, http2.ClientPreface)
	f := &frames{Framer: http2.NewFramer(c, c), b: b}
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.enc = hpack.NewEncoder(&f.block)
	f.WriteSettings()
	return f
}

// head writes a HEADERS frame.
func (f *frames) head(id uint32, end bool, fields ...string) {
	f.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		f.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.block.Bytes(), EndHeaders: true, EndStream: end})
}

// outcome reads the answer on stream id.
func (f *frames) outcome(id uint32) outcome {
	var o outcome
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			o.err = err
			return f.b.got(o)
		}
		if s, ok := frame.(*http2.SettingsFrame); ok && !s.IsAck() {
			f.WriteSettingsAck()
		}
		if frame.Header().StreamID != id {
			if _, ok := frame.(*http2.GoAwayFrame); ok {
				o.err = errors.New("connection refused by GOAWAY")
				return f.b.got(o)
			}
			continue
		}
		switch x := frame.(type) {
		case *http2.MetaHeadersFrame:
			fmt.Sscan(x.PseudoValue("status"), &o.status)
			for _, h := range x.Fields {
				o.text += h.Name + ": " + h.Value + "\n"
			}
			if x.StreamEnded() {
				return f.b.got(o)
			}
		case *http2.DataFrame:
			o.text += string(x.Data())
			if x.StreamEnded() {
				return f.b.got(o)
			}
		case *http2.RSTStreamFrame:
			o.err = fmt.Errorf("stream reset: %v", x.ErrCode)
			return f.b.got(o)
		}
	}
}

// forms are those in which V must not reach the guest.
func forms() []string {
	out := []string{V}
	for i := range 3 {
		s := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("x", i) + V))
		out = append(out, s[4:len(s)-4])
	}
	return out
}

// split writes a head as a HEADERS frame and CONTINUATION frames of a byte.
func (f *frames) split(id uint32, fields ...string) {
	f.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		f.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	block := f.block.Bytes()
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block[:1], EndStream: true})
	for i := 1; i < len(block); i++ {
		f.WriteContinuation(id, i == len(block)-1, block[i:i+1])
	}
}

// clientTLS completes a handshake against roots.
func clientTLS(c net.Conn, name string, roots *x509.CertPool, protocol string) (*tls.Conn, error) {
	alpn := map[string][]string{"h1": {"http/1.1"}, "h2": {"h2"}}[protocol]
	conn := tls.Client(c, &tls.Config{ServerName: name, RootCAs: roots, NextProtos: alpn})
	return conn, conn.Handshake()
}

var errNotArrived = errors.New("the upstream did not get the value")
