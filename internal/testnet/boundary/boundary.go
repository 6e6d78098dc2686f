// Package boundary is a whole boundary without a machine, for tests: the
// guest's network stack, the boundary's, its resolver and its proxy, and
// servers that record what reached them and echo it.
//
// The boundary is in this process, or it is that of cutout boundary, reached
// in one of its ways, on a machine of its own whose internet is this one.
//
// Its internet has two names, good.test, to which the secret is bound, and
// evil.test, to which nothing is, at public addresses that lead to loopback.
package boundary

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/ca"
	"github.com/cutoutdev/cutout/internal/dns"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/frame"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
	"github.com/cutoutdev/cutout/internal/pin"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/proxy"
	"github.com/cutoutdev/cutout/internal/relay"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// Value is what Placeholder stands for, at good.test.
const (
	Value       = "v4lu3-0f-the-c0rpus-s3cret-55667788"
	Placeholder = "$MSB_API_KEY"
)

// The addresses of the internet.
var (
	GoodAddr  = netip.MustParseAddr("93.184.216.34")
	EvilAddr  = netip.MustParseAddr("93.184.216.66")
	StrayAddr = netip.MustParseAddr("93.184.216.99") // leads to good.test, but resolved for nobody
)

// A Boundary is one. Its fields may be changed by the function given to
// [Start] and not later.
type Boundary struct {
	T        testing.TB
	Protocol string // h1 or h2: what the upstreams speak, and Secure
	CA       *testnet.CA
	DNS      *testnet.DNS
	Routes   testnet.Routes
	Events   testnet.Events
	Good     *testnet.Upstream // good.test
	Evil     *testnet.Upstream // evil.test
	Plain    *testnet.Upstream // both at port 80

	Store   *secret.Store
	Secret  *secret.Secret   // the one for good.test
	Secrets []*secret.Secret // all of them
	Pins    *pin.Table
	Leafs   *ca.Authority
	Config  proxy.Config
	Proxy   *proxy.Proxy // as of Config, when started
	// Plug is given the guest's end of the cable; nil: Guest is plugged in.
	Plug func(cable net.Conn, cfg netstack.Config)

	// Way is how the guest reaches the boundary of Program, a cutout; "": the
	// boundary is in this process. Start then makes flags of the fields above,
	// and Pins, Leafs, Proxy and Stack are nobody's.
	Way     Way
	Program string
	Own     []netip.Addr // public addresses of the boundary's machine

	Guest *netstacktest.Guest // nil: there is no link, programs come as to a proxy
	Stack *netstack.Stack

	set     atomic.Pointer[secret.Set]
	texts   map[secret.Value]string
	pins    []pinned
	process *process
}

// pinned is an answer that the guest has got.
type pinned struct {
	name string
	addr netip.Addr
}

// Inapplicable is what Start and others panic with when a test asks for what
// a boundary reached in its way does not have: the reason.
type Inapplicable string

// Must returns v, which must have been made without an error.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Start makes a boundary, which change may alter before it starts. It ends
// with t.
func Start(t testing.TB, protocol string, change func(*Boundary)) *Boundary {
	b := &Boundary{T: t, Protocol: protocol, CA: Must(testnet.NewCA()), Store: Must(secret.NewStore(0)), texts: map[secret.Value]string{}}
	t.Cleanup(func() { b.Store.Close() })
	b.Good, b.Evil, b.Plain = b.Upstream(nil, "good.test"), b.Upstream(nil, "evil.test"), b.Upstream(nil)
	b.DNS = Must(testnet.StartDNS(map[string]testnet.Record{
		"good.test": {Addrs: []netip.Addr{GoodAddr}},
		"evil.test": {Addrs: []netip.Addr{EvilAddr}},
	}))
	t.Cleanup(func() { b.DNS.Close() })
	for addr, u := range map[netip.Addr]*testnet.Upstream{GoodAddr: b.Good, EvilAddr: b.Evil, StrayAddr: b.Good} {
		b.Routes.Set(netip.AddrPortFrom(addr, 443), u.Addr())
		b.Routes.Set(netip.AddrPortFrom(addr, 8443), u.Addr())
		b.Routes.Set(netip.AddrPortFrom(addr, 80), b.Plain.Addr())
	}
	log := Must(audit.Create(filepath.Join(t.TempDir(), "audit.jsonl"), audit.Config{Notify: b.Events.Note}))
	t.Cleanup(func() { log.Close() })
	important := func(n hostname.Name) bool { return b.set.Load().HasHost(n) }
	b.Leafs = Must(ca.New(ca.Config{Allow: func(n hostname.Name) bool { return b.Config.Intercept == proxy.All || important(n) }}))
	b.Pins = &pin.Table{Important: important}
	b.Secret = b.NewSecret("API_KEY", Placeholder, Value, "good.test")
	b.Secrets = []*secret.Secret{b.Secret}
	b.Config = proxy.Config{
		Secrets: b.set.Load, Store: b.Store, CA: b.Leafs, Pins: b.Pins,
		Audit: log, Network: &policy.Network{Local: func(a netip.Addr) bool { return slices.Contains(b.Own, a) }},
		Dial: b.Routes.Dial, Roots: b.CA.Pool(),
	}
	before := b.Config
	if change != nil {
		change(b)
	}
	if b.Way != "" {
		b.prepare()
		b.launch(b.flags(before))
		return b
	}
	b.set.Store(Must(secret.NewSet(b.Secrets)))
	b.Proxy = Must(proxy.New(b.Config))
	b.plug()
	return b
}

// plug starts the boundary's network stack and puts a guest at the other end.
func (b *Boundary) plug() {
	note := func(e audit.Event) { b.Config.Audit.Append(e) }
	nowhere := Must(net.ListenPacket("udp", "127.0.0.1:0")) // all that is not TCP ends there
	b.T.Cleanup(func() { nowhere.Close() })
	datagrams := relay.New(relay.Config{
		Network: b.Config.Network, Pins: b.Pins, Secret: func(n hostname.Name) bool { return b.set.Load().HasHost(n) }, Audit: note,
		Dial: func(_ policy.Protocol, dst netip.AddrPort) (relay.Socket, error) {
			b.Routes.Note(dst)
			return net.DialUDP("udp", nil, nowhere.LocalAddr().(*net.UDPAddr))
		},
	})
	b.T.Cleanup(datagrams.Close)
	cfg := netstack.Config{
		Guest4: netstacktest.Guest4, Gateway4: netstacktest.Gateway4,
		Guest6: netstacktest.Guest6, Gateway6: netstacktest.Gateway6,
		DNS: &dns.Interceptor{Resolvers: []netip.AddrPort{b.DNS.Addr()}, Pins: b.Pins, Network: b.Config.Network, Audit: note},
		UDP: func(_ context.Context, r *netstack.UDPRequest) {
			datagrams.Datagram(relay.Datagram{Src: r.Src, Dst: r.Dst, Payload: r.Payload, Reply: r.Reply, Refuse: r.Refuse})
		},
		Echo: func(_ context.Context, r *netstack.EchoRequest) {
			datagrams.Ping(relay.Ping{Src: r.Src, Dst: r.Dst, ID: r.ID, Seq: r.Seq, Payload: r.Payload, Reply: r.Reply, Refuse: r.Refuse})
		},
		TCP: func(ctx context.Context, r *netstack.TCPRequest) {
			b.Proxy.ServeTCP(ctx, proxy.Flow{Src: r.Src, Dst: r.Dst, Accept: r.Accept, Refuse: r.Refuse})
		},
	}
	if b.Plug == nil {
		b.Guest, b.Stack = netstacktest.Start(b.T, cfg)
		return
	}
	link, guest := netstacktest.Cable(b.T)
	cfg.Link = frame.NewStream(link)
	b.Stack = Must(netstack.New(cfg))
	b.T.Cleanup(func() { b.Stack.Close() })
	b.Plug(guest, cfg)
}

// Change puts s in the place of the secret of its name, as [proxy.Proxy.Settle]
// describes, and returns when that may be acknowledged.
func (b *Boundary) Change(s *secret.Secret, wait time.Duration) (aborted int, err error) {
	if b.process != nil {
		return b.process.modify(s, b.texts[s.Value], wait)
	}
	next, err := b.set.Load().Next([]*secret.Secret{s})
	if err == nil {
		err = b.Proxy.Prepare(next)
	}
	if err != nil {
		return 0, err
	}
	b.set.Store(next)
	return b.Proxy.Settle(context.Background(), next, func(hostname.Name) bool { return true }, wait)
}

// Value puts text into the boundary's store.
func (b *Boundary) Value(text string) secret.Value {
	v := Must(testnet.Value(b.Store, text))
	b.texts[v] = text
	return v
}

// NewSecret makes a secret with its value in the boundary's store.
func (b *Boundary) NewSecret(name, placeholder, value, host string) *secret.Secret {
	return &secret.Secret{
		Name: name, Placeholder: placeholder, Value: b.Value(value),
		Hosts: []secret.Host{{Pattern: Must(hostname.ParsePattern(host)), Port: 443}},
	}
}

// Upstream starts a server of the boundary's protocol; without a name it is
// plain.
func (b *Boundary) Upstream(h http.Handler, names ...string) *testnet.Upstream {
	cfg := testnet.UpstreamConfig{Handler: h}
	if len(names) > 0 {
		cert := Must(b.CA.Cert(names...))
		cfg.Cert = &cert
	}
	return b.Serve(cfg)
}

// Serve starts a server of the boundary's protocol.
func (b *Boundary) Serve(cfg testnet.UpstreamConfig) *testnet.Upstream {
	cfg.HTTP1, cfg.HTTP2 = b.Protocol == "h1", b.Protocol == "h2"
	u := Must(testnet.StartUpstream(cfg))
	b.T.Cleanup(func() { u.Close() })
	return u
}

// Answer makes good.test answer by h.
func (b *Boundary) Answer(h http.HandlerFunc) { b.GoodIs(b.Upstream(h, "good.test")) }

// GoodIs makes u serve good.test.
func (b *Boundary) GoodIs(u *testnet.Upstream) {
	b.Good = u
	b.Routes.Set(netip.AddrPortFrom(GoodAddr, 443), u.Addr())
}

// Recorded reports whether an event that gives reason was, or soon is, on
// record.
func (b *Boundary) Recorded(reason policy.Reason) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, ok := b.Events.Find(ctx, func(e audit.Event) bool { return e.Reason == reason })
	return ok
}

// Dialed reports whether any port of addr was dialled.
func (b *Boundary) Dialed(addr netip.Addr) bool {
	return slices.ContainsFunc(b.Routes.Dialed(), func(a netip.AddrPort) bool { return a.Addr() == addr })
}

// Received is everything that any upstream got.
func (b *Boundary) Received() string {
	var all strings.Builder
	for _, u := range []*testnet.Upstream{b.Good, b.Evil, b.Plain} {
		for _, r := range u.Requests() {
			all.WriteString(r.Text())
		}
	}
	return all.String()
}

// CertPEM is the certificate of the boundary's authority, as the guest has it.
func (b *Boundary) CertPEM() []byte {
	if b.process != nil {
		return b.process.authority
	}
	return b.Leafs.CertPEM()
}

// Pin lets the guest have been told that name is at addr.
func (b *Boundary) Pin(name string, addr netip.Addr) {
	switch {
	case b.Way == "":
		b.Pins.Add(hostname.Name(name), addr, time.Hour)
	case b.Way.Proxy():
		panic(Inapplicable("a client of a proxy is told no addresses"))
	case b.process == nil:
		b.pins = append(b.pins, pinned{name, addr})
	default:
		b.DNS.Set(name, testnet.Record{Addrs: []netip.Addr{addr}})
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		Must(b.Guest.Resolve(ctx, name))
	}
}

// Dropped counts the guest's packets that went no further, by cause.
func (b *Boundary) Dropped(cause netstack.Cause) uint64 {
	if b.process != nil {
		return b.process.dropped(b.T, cause)
	}
	return b.Stack.Counters().Dropped[cause]
}

// InProcess panics with why, which is what cannot be done to a boundary that
// is in another process, if this one is.
func (b *Boundary) InProcess(why string) {
	if b.Way != "" {
		panic(Inapplicable(why))
	}
}

// A Target is where and as whom the guest connects.
type Target struct {
	Addr netip.Addr // zero: what Name resolves to
	Port uint16     // 0: 443
	Name string     // SNI; "": good.test, "-": none
	TLS  *tls.Config
}

// patience is how long a connection of the guest's may last. Another process is
// changed, and answers, in its own time.
func (b *Boundary) patience() time.Duration {
	if b.Way != "" {
		return time.Minute
	}
	return 20 * time.Second
}

// Dial opens a TCP connection from the guest.
func (b *Boundary) Dial(to Target) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if to.Port == 0 {
		to.Port = 443
	}
	name := to.Name
	if name == "" {
		name = "good.test"
	}
	if b.Way.Proxy() {
		return b.process.dial(ctx, b.patience(), to.Addr, name, to.Port)
	}
	if !to.Addr.IsValid() {
		addrs, err := b.Guest.Resolve(ctx, name)
		if err != nil {
			return nil, err
		}
		to.Addr = addrs[0]
	}
	c, err := b.Guest.Dial(ctx, "tcp", netip.AddrPortFrom(to.Addr, to.Port))
	if err == nil {
		c.SetDeadline(time.Now().Add(b.patience()))
	}
	return c, err
}

// ALPN is what clients of the boundary's protocol offer.
func (b *Boundary) ALPN() []string {
	return map[string][]string{"h1": {"http/1.1"}, "h2": {"h2"}}[b.Protocol]
}

// Secure opens a TLS connection from the guest.
func (b *Boundary) Secure(to Target) (*tls.Conn, error) {
	c, err := b.Dial(to)
	if err != nil {
		return nil, err
	}
	cfg := to.TLS.Clone()
	if cfg == nil {
		cfg = &tls.Config{}
	}
	if cfg.RootCAs == nil {
		cfg.RootCAs = x509.NewCertPool()
		cfg.RootCAs.AppendCertsFromPEM(b.CertPEM())
	}
	switch cfg.ServerName = to.Name; to.Name {
	case "":
		cfg.ServerName = "good.test"
	case "-":
		cfg.ServerName, cfg.InsecureSkipVerify = "", true
	}
	if cfg.NextProtos == nil {
		cfg.NextProtos = b.ALPN()
	}
	conn := tls.Client(c, cfg)
	if err := conn.Handshake(); err != nil {
		c.Close()
		return nil, err
	}
	return conn, nil
}
