package attack

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// A: where is this really going.
var sectionA = append([]probe{
	{entry: "A0", name: "an honest request", run: connect(target{}, "good.test"), want: substituted},
	{entry: "A1", name: "another Host", run: connect(target{}, "evil.test"), want: misdirected},
	{
		entry: "A2", name: "plain HTTP to an attacker, Host good.test",
		run: plain(target{Addr: evilAddr, Port: 80}), want: forbidden(policy.NotPinned), only: "h1",
	},
	{
		entry: "A2", name: "plain HTTP to a stray address at 443",
		run: plain(target{Addr: strayAddr, Port: 443}), want: forbidden(policy.HostNotAllowed), only: "h1", check: notDialed,
	},
	{
		entry: "A2", name: "plain HTTP to good.test itself",
		run: plain(target{Port: 80}), want: forbidden(policy.PlainHTTP), only: "h1",
	},
	{
		entry: "A2", name: "plain HTTP that the user permits", change: plainFor(false),
		run: plain(target{Port: 80}), want: substituted, only: "h1",
	},
	{
		entry: "A2", name: "plain HTTP permitted for another secret", change: plainFor(true),
		run: plain(target{Port: 80}), want: forbidden(policy.PlainHTTP), only: "h1",
	},
	{
		entry: "A3", name: "an address never resolved", run: connect(target{Addr: strayAddr}, "good.test"),
		want: forbidden(policy.NotPinned), check: notDialed,
	},
	{entry: "A4", name: "the guest's own resolver, UDP", run: ownResolver("udp"), want: forbidden(policy.NotPinned), check: notDialed},
	{entry: "A4", name: "the guest's own resolver, TCP", run: ownResolver("tcp"), want: forbidden(policy.NotPinned), check: notDialed},
	{entry: "A7", name: "an alias pins the name that was asked", run: alias("good.test"), want: substituted},
	{entry: "A7", name: "an alias does not pin its target", run: alias("evil.test"), want: forbidden(policy.NotPinned)},
	{entry: "A12", name: "another port", run: connect(target{Port: 8443}, "good.test:8443"), want: forbidden(policy.HostNotAllowed)},
	{
		entry: "A13", name: "verification is off, the secret insists", run: connect(target{}, "good.test"),
		want:   forbidden(policy.UpstreamUnverified),
		change: func(b *boundary) { selfSigned(b); noVerify(b) },
	},
	{
		entry: "A14", name: "the guest brings a root of its own", change: foreignRoot, run: connect(target{}, "good.test"),
		want: forbidden(policy.UpstreamUnverified),
	},
	{
		entry: "A15", name: "CONNECT inside TLS, raw", only: "h1",
		run: bytesToGood("CONNECT good.test:443 HTTP/1.1\r\nHost: good.test:443\r\n\r\n"), want: forbidden(policy.Tunnelled),
	},
	{entry: "A15", name: "CONNECT through a proxy of the guest's", run: tunnelled, want: forbidden(policy.Tunnelled)},
	{entry: "A16", name: "a hello in one-byte segments", run: wrapped(func(c net.Conn) net.Conn { return slow{c} }), want: substituted},
	{entry: "A16", name: "half a hello, then silence", run: greeted("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), want: refusedHello(policy.MalformedRequest), only: "h1", check: nothingSent},
	{entry: "A16", name: "garbage in a TLS record", run: greeted("\x16\x03\x01\x00\x10" + strings.Repeat("\xff", 16) + P), want: refusedHello(policy.MalformedRequest), only: "h1", check: nothingSent},
	{entry: "A17", name: "TLS 1.1", run: connect(target{TLS: &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}}, "good.test"), want: unanswered},
	{entry: "A17", name: "TLS 1.2", run: connect(target{TLS: &tls.Config{MaxVersion: tls.VersionTLS12}}, "good.test"), want: substituted},
	{entry: "A18", name: "one address for two names", change: shared, run: connect(target{}, "evil.test"), want: misdirected},
}, append(answers(), append(names(), certificates()...)...)...)

func notDialed(b *boundary) error {
	if b.Dialed(strayAddr) {
		return errors.New("the stray address was dialled")
	}
	return nil
}

// plainFor permits plain HTTP to good.test: for the secret, or for another.
func plainFor(another bool) func(*boundary) {
	return func(b *boundary) {
		x := b.Secret
		if another {
			x = b.NewSecret("OTHER_KEY", "$MSB_OTHER_KEY", "an0ther-value-of-the-corpus", "good.test")
			b.Secrets = append(b.Secrets, x)
		}
		x.Plain = []hostname.Name{"good.test"}
	}
}

func plain(to target) func(*boundary) outcome {
	return func(b *boundary) outcome {
		c, err := b.Dial(to)
		if err != nil {
			return outcome{err: err}
		}
		defer c.Close()
		return b.raw(c, "GET /echo HTTP/1.1\r\nHost: good.test\r\nAuthorization: "+bearer+"\r\n\r\n", 1)[0]
	}
}

// ownResolver asks a server that says good.test is at an address of its own.
// The boundary answers in its place, and nothing else pins.
func ownResolver(network string) func(*boundary) outcome {
	return func(b *boundary) outcome {
		liar, err := testnet.StartDNS(map[string]testnet.Record{"good.test": {Addrs: []netip.Addr{strayAddr}}})
		if err != nil {
			return outcome{err: err}
		}
		defer liar.Close()
		b.Routes.Set(netip.AddrPortFrom(evilAddr, 53), liar.Addr())
		r := b.guest().Resolver(netip.AddrPortFrom(evilAddr, 53))
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if network == "tcp" {
			dial := r.Dial
			r.Dial = func(ctx context.Context, _, addr string) (net.Conn, error) { return dial(ctx, "tcp", addr) }
		}
		addrs, err := r.LookupNetIP(ctx, "ip4", "good.test")
		if err != nil || len(addrs) != 1 || addrs[0].Unmap() != goodAddr || len(liar.Queries()) > 0 {
			return outcome{err: fmt.Errorf("lookup gave %v, %v; the liar heard %v", addrs, err, liar.Queries())}
		}
		return connect(target{Addr: strayAddr}, "good.test")(b)
	}
}

// answers are A5: addresses that a name must not have.
func answers() []probe {
	var out []probe
	for _, a := range []string{
		"127.0.0.1", "169.254.169.254", "10.0.0.1", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001::1",
		"0.0.0.0", "192.168.1.1", "100.64.0.1", ownAddr.String(), own6Addr.String(), "64:ff9b::c623:1a60", "fd00:ec2::254", "168.63.129.16",
	} {
		addr := netip.MustParseAddr(a)
		change := func(b *boundary) { // a public address may be this machine's own
			b.Own = []netip.Addr{ownAddr, own6Addr}
			b.Routes.Set(netip.AddrPortFrom(addr, 443), b.Good.Addr()) // there is somebody to be reached
		}
		out = append(out, probe{
			entry: "A5", name: "good.test is at " + a, want: want{status: []int{0}, reason: policy.AddressDenied}, change: change,
			run: func(b *boundary) outcome {
				b.DNS.Set("good.test", testnet.Record{Addrs: []netip.Addr{addr}})
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				if b.Guest != nil {
					if got, err := b.Guest.Resolve(ctx, "good.test"); err == nil {
						return outcome{status: -1, err: fmt.Errorf("the guest is told %v", got)}
					}
				}
				return b.undialled(addr, connect(target{}, "good.test")(b))
			},
		}, probe{
			entry: "A5", name: "straight to " + a, want: unanswered, change: change,
			run: func(b *boundary) outcome {
				return b.undialled(addr, connect(target{Addr: addr}, "good.test")(b))
			},
		})
	}
	return out
}

// Public addresses that are this machine's own in A5.
var (
	ownAddr  = netip.MustParseAddr("198.35.26.96")
	own6Addr = netip.MustParseAddr("2620:0:860::1")
)

// undialled is o, unless addr was dialled.
func (b *boundary) undialled(addr netip.Addr, o outcome) outcome {
	loopback := [...]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()} // where 0.0.0.0 leads
	if b.Dialed(addr) || b.Dialed(addr.Unmap()) || slices.ContainsFunc(loopback[:], b.Dialed) {
		return outcome{status: -1, err: fmt.Errorf("%s was dialled", addr)}
	}
	return o
}

func alias(name string) func(*boundary) outcome {
	return func(b *boundary) outcome {
		b.DNS.Set("good.test", testnet.Record{CNAME: "elsewhere.test"})
		b.DNS.Set("elsewhere.test", testnet.Record{Addrs: []netip.Addr{strayAddr}})
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if name == "good.test" {
			b.guest().Resolve(ctx, "good.test")
		} else {
			b.guest().Resolve(ctx, "elsewhere.test")
		}
		return connect(target{Addr: strayAddr}, "good.test")(b)
	}
}

// names are A11: server names that are not quite good.test.
func names() []probe {
	var out []probe
	for name, w := range map[string]want{
		"GOOD.test":                        substituted,
		"good.test\x00.evil":               unanswered,
		"good..test":                       unanswered,
		"xn--good-.test":                   unanswered,
		"-":                                {status: []int{200}, carried: true}, // spliced
		"93.184.216.34":                    {status: []int{200}, carried: true}, // not sent by this client, so spliced
		strings.Repeat("a.", 127) + "test": unanswered,
	} {
		label := name
		if len(label) > 20 {
			label = "254 octets"
		}
		out = append(out, probe{
			entry: "A11", name: fmt.Sprintf("server name %q", label), want: w,
			run:    connect(target{Addr: goodAddr, Name: name, TLS: &tls.Config{InsecureSkipVerify: true}}, "good.test"),
			change: func(b *boundary) { b.Pin("good.test", goodAddr) },
		})
	}
	return out
}

// certificates are A13: upstreams that do not prove to be good.test.
func certificates() []probe {
	var out []probe
	for name, issue := range map[string]func(*testnet.CA) (tls.Certificate, error){
		"expired":     func(ca *testnet.CA) (tls.Certificate, error) { return ca.Expired("good.test") },
		"self-signed": func(ca *testnet.CA) (tls.Certificate, error) { return ca.SelfSigned("good.test") },
		"wrong name":  func(ca *testnet.CA) (tls.Certificate, error) { return ca.Cert("evil.test") },
		"unknown CA":  func(*testnet.CA) (tls.Certificate, error) { return must(testnet.NewCA()).Cert("good.test") },
	} {
		out = append(out, probe{
			entry: "A13", name: name, run: connect(target{}, "good.test"), want: forbidden(policy.UpstreamUnverified),
			change: func(b *boundary) {
				cert := must(issue(b.CA))
				b.GoodIs(b.Serve(testnet.UpstreamConfig{Cert: &cert}))
			},
			check: func(b *boundary) error {
				if n := len(b.Good.Requests()); n > 0 {
					return fmt.Errorf("the upstream got %d requests", n)
				}
				return nil
			},
		})
	}
	return out
}

// foreignRoot lets good.test be served under a root that only the guest
// trusts.
func foreignRoot(b *boundary) {
	other := must(testnet.NewCA())
	cert := must(other.Cert("good.test"))
	b.GoodIs(b.Serve(testnet.UpstreamConfig{Cert: &cert}))
}

// tunnelled reaches good.test through a proxy that the guest chose: the TLS
// inside is not seen, and nothing is substituted.
func tunnelled(b *boundary) outcome {
	b.proxied(func(c net.Conn) bool {
		c.Read(make([]byte, 4096))
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		return err == nil
	})
	c, err := b.Dial(target{Addr: evilAddr, Port: 3128})
	if err != nil {
		return outcome{err: err}
	}
	defer c.Close()
	if o := b.raw(c, "CONNECT good.test:443 HTTP/1.1\r\nHost: good.test:443\r\n\r\n", 1)[0]; o.status != 200 {
		return o
	}
	conn, err := clientTLS(c, "good.test", b.CA.Pool(), b.Protocol)
	if err != nil {
		return outcome{err: err}
	}
	return b.request(conn, "GET", "/echo", "good.test", "Authorization", bearer)
}

// A slow connection writes byte by byte.
type slow struct{ net.Conn }

func (s slow) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := s.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
		if i%64 == 63 { // the queue of a TAP device is short
			time.Sleep(2 * time.Millisecond)
		}
	}
	return len(p), nil
}

// shared puts good.test and evil.test on one address.
func shared(b *boundary) {
	b.Pin("evil.test", goodAddr)
}
