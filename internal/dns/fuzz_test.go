package dns

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
)

// FuzzAnswer: whatever the guest sends, what comes back is a response with
// its id, or nothing.
func FuzzAnswer(f *testing.F) {
	for _, m := range []*dns.Msg{
		question("api.test.", dns.TypeA), question("api.test.", dns.TypeHTTPS).SetEdns0(1232, true), question("x.local.", dns.TypeANY),
	} {
		b, _ := m.Pack()
		f.Add(b, false)
		f.Add(b, true)
	}
	i, _ := interceptor()
	i.Static["api.test"] = []netip.Addr{netip.MustParseAddr("198.18.0.1")}
	f.Fuzz(func(t *testing.T, b []byte, tcp bool) {
		out := i.Answer(context.Background(), b, tcp)
		if out == nil {
			return
		}
		var p dnsmessage.Parser
		h, err := p.Start(out)
		if err != nil || !h.Response || len(b) < 2 || out[0] != b[0] || out[1] != b[1] {
			t.Fatalf("%x is answered by %x: %v", b, out, err)
		}
		if !tcp && len(out) > maxUDP {
			t.Fatalf("%d bytes by UDP", len(out))
		}
	})
}

// FuzzSanitize: whatever a resolver answers, the guest gets and the table
// pins only permitted addresses, each of which the answer gives for the chain.
func FuzzSanitize(f *testing.F) {
	for _, records := range [][]string{
		{"good.test. 30 IN A 8.8.8.8", "good.test. 30 IN A 10.0.0.1"},
		{"good.test. 30 IN CNAME x.test.", "x.test. 0 IN A 1.1.1.1", "y.test. 0 IN A 2.2.2.2"},
		{`good.test. 30 IN HTTPS 1 . alpn="h3,h2" ipv4hint="6.6.6.6"`},
	} {
		m := question("good.test.", dns.TypeA)
		m.Response = true
		for _, s := range records {
			m.Answer = append(m.Answer, rr(f, s))
		}
		b, _ := m.Pack()
		f.Add(b, uint16(dns.TypeA))
		f.Add(b, uint16(dns.TypeHTTPS))
	}
	f.Fuzz(func(t *testing.T, b []byte, kind uint16) {
		var m dnsmessage.Message
		if m.Unpack(b) != nil {
			return
		}
		i, _ := interceptor()
		msg, err := question("GOOD.test.", kind).Pack()
		if err != nil {
			return
		}
		q, rcode, ok := parseQuery(msg)
		if !ok || rcode != 0 {
			return
		}
		r := i.sanitize(q, &m)
		var given []netip.Addr
		for _, rr := range append(slices.Clone(r.answers), r.authorities...) {
			switch body := rr.Body.(type) {
			case *dnsmessage.AResource:
				given = append(given, netip.AddrFrom4(body.A))
			case *dnsmessage.AAAAResource:
				given = append(given, netip.AddrFrom16(body.AAAA))
			case *dnsmessage.HTTPSResource:
				if _, ok := body.GetParam(dnsmessage.SVCParamECH); ok {
					t.Fatal("ech passed")
				}
			}
		}
		for _, a := range given {
			if !i.Network.Address(a).Allowed {
				t.Fatalf("%v was given", a)
			}
			if !i.Pins.Pinned("good.test", a) {
				t.Fatalf("%v was given and not pinned", a)
			}
		}
		if i.Pins.Len() > len(given) {
			t.Fatalf("%d pins for %v", i.Pins.Len(), given)
		}
		q.pack(r, true)
	})
}

// A4: the guest's own resolver is never asked, whatever it answers.
func TestThroughTheStack(t *testing.T) {
	r := serve(t, zone(t, map[string][]string{
		"good.test.": {"good.test. 30 IN A 8.8.8.8"},
		"evil.test.": {"evil.test. 30 IN A 10.0.0.1"},
	}))
	i, _ := interceptor(r)
	g, _ := netstacktest.Start(t, netstack.Config{DNS: i, TCP: func(_ context.Context, r *netstack.TCPRequest) { r.Refuse() }})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, server := range []string{"10.99.0.1:53", "6.6.6.6:53", "[2001:db8::6]:53"} {
		res := g.Resolver(netip.MustParseAddrPort(server))
		addrs, err := res.LookupNetIP(ctx, "ip4", "good.test.")
		if err != nil || len(addrs) != 1 || addrs[0].Unmap() != netip.MustParseAddr("8.8.8.8") {
			t.Errorf("%s: %v, %v", server, addrs, err)
		}
		if addrs, err := res.LookupNetIP(ctx, "ip4", "evil.test."); err == nil {
			t.Errorf("%s: a private answer: %v", server, addrs)
		}
	}
	if !i.Pins.Pinned(hostname.Name("good.test"), netip.MustParseAddr("8.8.8.8")) || i.Pins.Len() != 1 {
		t.Errorf("%d pins", i.Pins.Len())
	}
	if addrs, err := g.Resolve(ctx, "good.test."); err != nil || len(addrs) != 1 {
		t.Errorf("Resolve: %v, %v", addrs, err)
	}
}
