package attack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// A6, A9, A10, B11, E2, E8: what time, numbers and forged packets do to
// the gates.
var sectionNetwork = append([]probe{
	{entry: "A9", name: "ech, h3 and hints in an HTTPS record", change: hints, run: hinted, want: want{status: []int{403}, reason: policy.NotPinned}},
	{entry: "E2", name: "broken frames and packets", run: malformedFrames, want: substituted},
	{entry: "E8", name: fmt.Sprintf("certificates for %d names", manyNames), run: leafs, want: substituted, only: "h1", budget: 32 << 20},
	{entry: "E8", name: fmt.Sprintf("certificates for %d names, all opened", manyNames), change: all, run: leafs, want: substituted, only: "h1", budget: 32 << 20},
	{entry: "A6", name: "the pin expires while a connection is open", run: expires, want: want{status: []int{403}, reason: policy.NotPinned, value: true}},
	{
		entry: "B11", name: "placeholder in a trailer of HTTP/2", run: trailers("x-sum", P), only: "h2",
		want: want{status: []int{200}, carried: true}, check: carriedOnRecord,
	},
}, noUDP()...)

// noUDP are A10: protocols that nobody can look into are refused at once, so
// that clients fall back.
func noUDP() []probe {
	var out []probe
	for name, to := range map[string]netip.AddrPort{
		"QUIC":    netip.AddrPortFrom(goodAddr, 443),
		"DoQ":     netip.AddrPortFrom(goodAddr, 853),
		"mDNS":    netip.AddrPortFrom(goodAddr, 5353),
		"LLMNR":   netip.AddrPortFrom(goodAddr, 5355),
		"NetBIOS": netip.AddrPortFrom(goodAddr, 137),
	} {
		out = append(out, probe{entry: "A10", name: name, only: "h1", want: unanswered, run: func(b *boundary) outcome {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			b.guest().Resolve(ctx, "good.test")
			seen := b.guest().Capture(ctx)
			from := netip.AddrPortFrom(b.lan().own4, 4000)
			b.guest().SendFrame(b.guest().Ethernet(netstacktest.UDP(from, to, []byte("\xc0\x00\x00\x00\x01 hello"))))
			for {
				select {
				case frame := <-seen:
					// Ethernet, an IPv4 head of 20 bytes, ICMP destination unreachable.
					if len(frame) > 34 && frame[12] == 8 && frame[14+9] == 1 && frame[34] == 3 {
						return outcome{}
					}
				case <-ctx.Done():
					return outcome{status: -1, err: errors.New("no ICMP error came")}
				}
			}
		}})
	}
	return out
}

// hints gives good.test an HTTPS record that would take a client elsewhere.
func hints(b *boundary) {
	b.DNS.Set("good.test", testnet.Record{Addrs: []netip.Addr{goodAddr}, Extra: []dnsmessage.Resource{{
		Header: dnsmessage.ResourceHeader{Type: dnsmessage.TypeHTTPS, Class: dnsmessage.ClassINET, TTL: 60},
		Body: &dnsmessage.HTTPSResource{SVCBResource: dnsmessage.SVCBResource{Priority: 1, Target: dnsmessage.MustNewName("."), Params: []dnsmessage.SVCParam{
			{Key: dnsmessage.SVCParamALPN, Value: []byte("\x02h3\x02h2")},
			{Key: dnsmessage.SVCParamIPv4Hint, Value: strayAddr.AsSlice()},
			{Key: dnsmessage.SVCParamECH, Value: []byte("\x00\x04\xfe\x0d\x00\x00")},
		}}},
	}}})
}

// hinted asks for the record, of which neither ech nor h3 may be left, and
// then connects to the hinted address.
func hinted(b *boundary) outcome {
	c, err := b.resolver()
	if err != nil {
		return outcome{err: err}
	}
	defer c.Close()
	answer, err := askDNS(c, "good.test", dnsmessage.TypeHTTPS)
	if err != nil || len(answer.Answers) != 1 {
		return outcome{err: fmt.Errorf("the answer is %v %v", answer, err)}
	}
	for _, p := range answer.Answers[0].Body.(*dnsmessage.HTTPSResource).Params {
		if p.Key == dnsmessage.SVCParamECH || strings.Contains(string(p.Value), "h3") {
			return outcome{err: fmt.Errorf("the guest got the parameter %v", p)}
		}
	}
	return connect(target{Addr: strayAddr}, "good.test")(b)
}

// malformedFrames sends what no machine would, and then an honest request.
func malformedFrames(b *boundary) outcome {
	n := b.lan()
	src, dst := netip.AddrPortFrom(n.own4, 4000), netip.AddrPortFrom(goodAddr, 443)
	good := b.guest().Ethernet(netstacktest.TCP(src, dst, 1, 0, 2))
	for n := range len(good) {
		b.guest().SendFrame(good[:n]) // cut anywhere
	}
	for i := range len(good) {
		bad := slices.Clone(good)
		bad[i] ^= 0xff
		b.guest().SendFrame(bad)
	}
	payload := make([]byte, 1000)
	for _, proto := range []byte{0, 1, 2, 4, 6, 17, 41, 43, 44, 50, 58, 59, 60, 255} {
		for _, size := range []int{0, 1, 7, 8, 20, 1000} {
			b.guest().SendFrame(b.guest().Ethernet(netstacktest.IP(src.Addr(), dst.Addr(), proto, payload[:size])))
			b.guest().SendFrame(b.guest().Ethernet(netstacktest.IP(n.own6, n.gateway6, proto, payload[:size])))
		}
	}
	return connect(target{}, "good.test")(b)
}

var manyNames = sized(150, 100_000)

// leafs opens connections to good.test's address under names that are
// nobody's: no certificate is made for them, not even where every connection
// is opened, since no server proves to be them.
func leafs(b *boundary) outcome {
	for i := range manyNames {
		name := fmt.Sprintf("n%d.test", i)
		c, err := b.Secure(target{Addr: goodAddr, Name: name})
		if err == nil {
			c.Close()
			return outcome{err: fmt.Errorf("the guest got a certificate for %s", name)}
		}
	}
	return connect(target{}, "good.test")(b)
}

// expires uses a connection beyond the life of its pin, which goes on, and
// then opens another.
func expires(b *boundary) outcome {
	later := clock(b)
	c, err := b.Secure(target{})
	if err != nil {
		return outcome{err: err}
	}
	defer c.Close()
	later.Store(int64(25 * time.Hour))
	if o := b.request(c, "GET", "/echo", "good.test", "Authorization", bearer); o.status != 200 {
		return outcome{err: fmt.Errorf("the open connection: %d %v", o.status, o.err)}
	}
	return connect(target{Addr: goodAddr}, "good.test")(b)
}
