package attack

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/cutoutdev/cutout/internal/config"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// A6, A7, A8, A12, A15: whose address is this, and whose name.
var sectionName = join(ages(), siblings(), bindings(), tunnels(), []probe{
	{
		entry: "A7", name: "an alias of another's name", want: forbidden(policy.UpstreamUnverified),
		run: func(b *boundary) outcome {
			b.DNS.Set("good.test", testnet.Record{CNAME: "evil.test"})
			return connect(target{}, "good.test")(b)
		},
		check: func(b *boundary) error {
			if n := len(b.Evil.Requests()); n > 0 {
				return fmt.Errorf("the address got %d requests", n)
			}
			if b.Way != "" {
				return nil
			}
			if names := b.Pins.Names(evilAddr); len(names) != 1 || names[0] != "good.test" {
				return fmt.Errorf("the address is pinned for %v", names)
			}
			return nil
		},
	},
	{
		entry: "A8", name: fmt.Sprintf("%d names with TTL 2^31-1", sized(50_000, 1_000_000)), only: "h1", run: crowded(sized(50_000, 1_000_000)),
		want: substituted, budget: 8 << 20,
	},
	{entry: "A8", name: fmt.Sprintf("%d names, looked up", sized(4500, 50_000)), only: "h1", run: looksUp(sized(4500, 50_000)), want: substituted, budget: 32 << 20},
})

// clock lets the pins of b live in a time that is later than now.
func clock(b *boundary) (later *atomic.Int64) {
	b.InProcess("it sets the clock of the pins")
	later = new(atomic.Int64)
	b.Pins.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	return later
}

// ages are A6: what time does to a pin.
func ages() []probe {
	aged := func(ttl uint32, age time.Duration) func(*boundary) outcome {
		return func(b *boundary) outcome {
			later := clock(b)
			b.DNS.Set("good.test", testnet.Record{Addrs: []netip.Addr{goodAddr}, TTL: ttl})
			c, err := b.Dial(target{}) // looks the name up
			if err != nil {
				return outcome{err: err}
			}
			c.Close()
			later.Store(int64(age))
			return connect(target{Addr: goodAddr}, "good.test")(b)
		}
	}
	return []probe{
		{entry: "A6", name: "TTL 1 s, after nine minutes", run: aged(1, 9*time.Minute), want: substituted},
		{entry: "A6", name: "TTL 1 s, after eleven minutes", run: aged(1, 11*time.Minute), want: forbidden(policy.NotPinned), check: nothingSent},
		{entry: "A6", name: "TTL 2^31-1, after 23 hours", run: aged(1<<31-1, 23*time.Hour), want: substituted},
		{entry: "A6", name: "TTL 2^31-1, after 25 hours", run: aged(1<<31-1, 25*time.Hour), want: forbidden(policy.NotPinned), check: nothingSent},
		{entry: "A6", name: "the address is another tenant's", run: moved, want: forbidden(policy.NotPinned), check: func(b *boundary) error {
			if n := len(b.Evil.Requests()); n > 0 {
				return fmt.Errorf("the new tenant got %d requests", n)
			}
			return nil
		}},
		{entry: "A6", name: "the name has moved, and is looked up again", want: substituted, run: func(b *boundary) outcome {
			if o := moved(b); o.reason() != policy.NotPinned {
				return o
			}
			return connect(target{}, "good.test")(b)
		}},
	}
}

// moved gives good.test's address, once its pin has expired, to evil.test.
func moved(b *boundary) outcome {
	later := clock(b)
	if c, err := b.Dial(target{}); err == nil {
		c.Close()
	}
	later.Store(int64(25 * time.Hour))
	b.Routes.Set(netip.AddrPortFrom(goodAddr, 443), b.Evil.Addr())
	b.DNS.Set("good.test", testnet.Record{Addrs: []netip.Addr{strayAddr}})
	b.DNS.Set("evil.test", testnet.Record{Addrs: []netip.Addr{goodAddr}})
	c, err := b.Dial(target{Name: "evil.test"})
	if err != nil {
		return outcome{err: err}
	}
	c.Close()
	return connect(target{Addr: goodAddr}, "good.test")(b)
}

// siblings are A7 under a wildcard: each name has pins of its own.
func siblings() []probe {
	wild := func(b *boundary) {
		b.Secret.Hosts[0].Pattern = must(hostname.ParsePattern("*.good.test"))
		b.GoodIs(b.Upstream(nil, "*.good.test", "good.test"))
		b.DNS.Set("a.good.test", testnet.Record{Addrs: []netip.Addr{goodAddr}})
		b.Pin("a.good.test", goodAddr)
	}
	return []probe{
		{entry: "A7", name: "a name under a wildcard", change: wild, run: connect(target{Name: "a.good.test"}, "a.good.test"), want: substituted},
		{entry: "A7", name: "a sibling of it that was not resolved", change: wild, run: connect(target{Addr: goodAddr, Name: "b.good.test"}, "b.good.test"), want: forbidden(policy.NotPinned), check: nothingSent},
		{entry: "A7", name: "a sibling of it on its connection", change: wild, run: connect(target{Name: "a.good.test"}, "b.good.test"), want: misdirected, check: nothingSent},
		{entry: "A7", name: "the apex of the wildcard", change: wild, run: unopened("good.test"), want: want{status: []int{200}, carried: true}},
		{entry: "A7", name: "a name that only ends like it", change: func(b *boundary) {
			wild(b)
			b.GoodIs(b.Upstream(nil, "xgood.test"))
			b.DNS.Set("xgood.test", testnet.Record{Addrs: []netip.Addr{goodAddr}})
		}, run: unopened("xgood.test"), want: want{status: []int{200}, carried: true}},
	}
}

// unopened is a probe of an honest request to a name whose connections are
// not opened: what its server gets is the useless text.
func unopened(name string) func(*boundary) outcome {
	return func(b *boundary) outcome {
		c, err := b.Secure(target{Name: name, TLS: &tls.Config{RootCAs: b.CA.Pool()}})
		if err != nil {
			return outcome{err: err}
		}
		defer c.Close()
		return b.request(c, "GET", "/echo", name, "Authorization", bearer)
	}
}

func crowded(names int) func(*boundary) outcome {
	return func(b *boundary) outcome {
		b.InProcess("it fills the table of pins by hand")
		b.Pin("good.test", goodAddr)
		for i := range names {
			b.Pins.Add(hostname.Name(fmt.Sprintf("n%d.test", i)), evilAddr, (1<<31-1)*time.Second)
		}
		return pinsKept(b)
	}
}

// pinsKept connects to good.test by an address that was looked up before all
// the others.
func pinsKept(b *boundary) outcome {
	if b.Way == "" {
		if n := b.Pins.Len(); n > 4096 {
			return outcome{err: fmt.Errorf("%d pins", n)}
		}
	}
	return connect(target{Addr: goodAddr}, "good.test")(b)
}

// looksUp is crowded by the guest's own questions.
func looksUp(names int) func(*boundary) outcome {
	return func(b *boundary) outcome {
		c, err := b.resolver()
		if err != nil {
			return outcome{err: err}
		}
		defer c.Close()
		if _, err := askDNS(c, "good.test", dnsmessage.TypeA); err != nil {
			return outcome{err: err}
		}
		for i := range names {
			name := fmt.Sprintf("n%d.test", i)
			b.DNS.Set(name, testnet.Record{Addrs: []netip.Addr{evilAddr}, TTL: 1<<31 - 1})
			if _, err := askDNS(c, name, dnsmessage.TypeA); err != nil { // or is told to wait
				return outcome{err: fmt.Errorf("lookup of %s: %v", name, err)}
			}
		}
		return pinsKept(b)
	}
}

// resolver is a socket to the boundary's resolver.
func (b *boundary) resolver() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return b.guest().Dial(ctx, "udp", netip.AddrPortFrom(b.lan().gateway4, 53))
}

// askDNS asks on a datagram socket.
func askDNS(c net.Conn, name string, kind dnsmessage.Type) (*dnsmessage.Message, error) {
	c.SetDeadline(time.Now().Add(20 * time.Second))
	q := dnsmessage.Message{Header: dnsmessage.Header{ID: 1, RecursionDesired: true}, Questions: []dnsmessage.Question{
		{Name: dnsmessage.MustNewName(name + "."), Type: kind, Class: dnsmessage.ClassINET},
	}}
	if _, err := c.Write(must(q.Pack())); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	if err != nil {
		return nil, err
	}
	m := new(dnsmessage.Message)
	return m, m.Unpack(buf[:n])
}

// atLoad is why some probes are sent to no boundary.
const atLoad = "it is about what is refused at load"

// bindings are A12: what nobody may bind a secret to.
func bindings() []probe {
	bound := func(host string) func(*boundary) outcome {
		return func(b *boundary) outcome {
			b.InProcess(atLoad)
			if _, err := config.ParseSecret("API_KEY@" + host); err != nil {
				return outcome{text: err.Error(), err: err}
			}
			return outcome{status: 200}
		}
	}
	out := []probe{
		{entry: "A12", name: "bound to a name, at load", only: "h1", run: bound("good.example.com"), want: want{status: []int{200}}},
		{entry: "A12", name: "bound to *.good.example.com, at load", only: "h1", run: bound("*.good.example.com"), want: want{status: []int{200}}},
	}
	for _, host := range []string{"*", "*.com", "*.github.io", "*.amazonaws.com", "*.core.windows.net", "*.co.uk", "good.*", "g*.example.com", "", ",", "good.example.com,", "*."} {
		out = append(out, probe{entry: "A12", name: fmt.Sprintf("bound to %q, refused at load", host), only: "h1", run: bound(host), want: unanswered})
	}
	return out
}

// tunnels are A15: what goes through a proxy that the guest chose.
func tunnels() []probe {
	socks := func(greeting string, answers ...int) func(*boundary) outcome {
		return func(b *boundary) outcome {
			b.proxied(func(c net.Conn) bool {
				for _, n := range answers {
					if _, err := io.ReadFull(c, make([]byte, n)); err != nil {
						return false
					}
					c.Write([]byte{0})
				}
				return true
			})
			c, err := b.Dial(target{Addr: evilAddr, Port: 3128})
			if err != nil {
				return outcome{err: err}
			}
			defer c.Close()
			rest := greeting
			for _, n := range answers {
				io.WriteString(c, rest[:n])
				rest = rest[n:]
				if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
					return outcome{err: err}
				}
			}
			conn, err := clientTLS(c, "good.test", b.CA.Pool(), b.Protocol)
			if err != nil {
				return outcome{err: err}
			}
			return b.request(conn, "GET", "/echo", "good.test", "Authorization", bearer)
		}
	}
	passes := want{status: []int{200}, carried: true}
	return []probe{
		{entry: "A15", name: "SOCKS5 through a proxy of the guest's", want: passes, check: toldTunnelled, run: socks("\x05\x01\x00\x05\x01\x00\x03\x09good.test\x01\xbb", 3, 16)},
		{entry: "A15", name: "SOCKS5 with a password", want: passes, check: toldTunnelled, run: socks("\x05\x01\x02\x01\x02me\x03own\x05\x01\x00\x03\x09good.test\x01\xbb", 3, 8, 16)},
		{
			entry: "A15", name: "SOCKS5 to an address of good.test", want: passes, check: toldTunnelled,
			change: func(b *boundary) { b.Pin("good.test", goodAddr) },
			run:    socks("\x05\x01\x00\x05\x01\x00\x01\x5d\xb8\xd8\x22\x01\xbb", 3, 10),
		},
		{entry: "A15", name: "SOCKS4a through a proxy of the guest's", want: passes, check: toldTunnelled, run: socks("\x04\x01\x01\xbb\x00\x00\x00\x01\x00good.test\x00", 19)},
		{
			entry: "A15", name: "an absolute target through the guest's proxy", only: "h1", want: forbidden(policy.Tunnelled),
			run: func(b *boundary) outcome {
				b.proxied(func(net.Conn) bool { return true })
				c, err := b.Dial(target{Addr: evilAddr, Port: 3128})
				if err != nil {
					return outcome{err: err}
				}
				defer c.Close()
				return b.raw(c, "GET http://good.test/echo HTTP/1.1\r\nHost: good.test\r\n"+authLine+"\r\n", 1)[0]
			},
		},
		{
			entry: "A15", name: "CONNECT inside TLS, and TLS behind it", only: "h1", want: forbidden(policy.Tunnelled), check: nothingSent,
			run: bytesToGood("CONNECT good.test:443 HTTP/1.1\r\nHost: good.test:443\r\n" + authLine + "\r\n" + hello{names: []string{"good.test"}, lists: 1}.record()),
		},
		{
			entry: "A15", name: "CONNECT inside TLS to another host", only: "h1", want: want{status: []int{403, 421}},
			run: bytesToGood("CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n" + authLine + "\r\n"), check: nothingSent,
		},
	}
}

// toldTunnelled checks that what passes through a proxy of the guest's is on
// record.
func toldTunnelled(b *boundary) error {
	if !b.Recorded(policy.Tunnelled) {
		return errors.New("no event says tunnelled")
	}
	return nil
}

// proxied puts a proxy to good.test at port 3128 of evil.test's address,
// which passes everything on once greet is done.
func (b *boundary) proxied(greet func(net.Conn) bool) {
	raw := must(testnet.StartRaw(testnet.RawConfig{Serve: func(c net.Conn) {
		if !greet(c) {
			return
		}
		up, err := net.Dial("tcp", b.Good.Addr().String())
		if err != nil {
			return
		}
		defer up.Close()
		go io.Copy(up, c)
		io.Copy(c, up)
	}}))
	b.T.Cleanup(func() { raw.Close() })
	b.Routes.Set(netip.AddrPortFrom(evilAddr, 3128), raw.Addr())
}
