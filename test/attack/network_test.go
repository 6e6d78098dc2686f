package attack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// A6, A8-A10, A19, B11, E2, E8: what time, numbers and forged packets do to
// the gates.
var sectionNetwork = append([]probe{
	{entry: "A9", name: "ech, h3 and hints in an HTTPS record", change: hints, run: hinted, want: want{status: []int{403}, reason: policy.NotPinned}},
	{entry: "E2", name: "broken frames and packets", run: malformedFrames, want: substituted},
	{entry: "E8", name: "certificates for 200 names", run: leafs, want: substituted, only: "h1"},
	{entry: "A6", name: "the pin expires while a connection is open", run: expires, want: want{status: []int{403}, reason: policy.NotPinned, value: true}, only: "h1"},
	{entry: "A8", name: "10^4 names do not displace a secret's pin", run: crowded, want: substituted},
	{entry: "A19", name: "packets from another address", run: foreign, want: substituted},
	{
		entry: "B11", name: "placeholder in a trailer of HTTP/2", run: trailer2, only: "h2",
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
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			b.Guest.Resolve(ctx, "good.test")
			seen := b.Guest.Capture(ctx)
			from := netip.AddrPortFrom(netstacktest.Guest4.Addr(), 4000)
			b.Guest.SendFrame(b.Guest.Ethernet(netstacktest.UDP(from, to, []byte("\xc0\x00\x00\x00\x01 hello"))))
			for frame := range seen {
				// Ethernet, an IPv4 head of 20 bytes, ICMP destination unreachable.
				if len(frame) > 34 && frame[12] == 8 && frame[14+9] == 1 && frame[34] == 3 {
					return outcome{}
				}
			}
			return outcome{status: 1, err: errors.New("no ICMP error came")}
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
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := b.Guest.Dial(ctx, "udp", netip.AddrPortFrom(netstacktest.Gateway4, 53))
	if err != nil {
		return outcome{err: err}
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	q := dnsmessage.Message{Header: dnsmessage.Header{ID: 1, RecursionDesired: true}, Questions: []dnsmessage.Question{
		{Name: dnsmessage.MustNewName("good.test."), Type: dnsmessage.TypeHTTPS, Class: dnsmessage.ClassINET},
	}}
	c.Write(must(q.Pack()))
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	if err != nil {
		return outcome{err: err}
	}
	var answer dnsmessage.Message
	if err := answer.Unpack(buf[:n]); err != nil || len(answer.Answers) != 1 {
		return outcome{err: fmt.Errorf("the answer is %v %v", answer.Answers, err)}
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
	src, dst := netip.AddrPortFrom(netstacktest.Guest4.Addr(), 4000), netip.AddrPortFrom(goodAddr, 443)
	good := b.Guest.Ethernet(netstacktest.TCP(src, dst, 1, 0, 2))
	for n := range len(good) {
		b.Guest.SendFrame(good[:n]) // cut anywhere
	}
	for i := range len(good) {
		bad := slices.Clone(good)
		bad[i] ^= 0xff
		b.Guest.SendFrame(bad)
	}
	payload := make([]byte, 1000)
	for _, proto := range []byte{0, 1, 2, 4, 6, 17, 41, 43, 44, 50, 58, 59, 60, 255} {
		for _, size := range []int{0, 1, 7, 8, 20, 1000} {
			b.Guest.SendFrame(b.Guest.Ethernet(netstacktest.IP(src.Addr(), dst.Addr(), proto, payload[:size])))
			b.Guest.SendFrame(b.Guest.Ethernet(netstacktest.IP(netstacktest.Guest6.Addr(), netstacktest.Gateway6, proto, payload[:size])))
		}
	}
	return connect(target{}, "good.test")(b)
}

// leafs opens connections to good.test's address under names that are
// nobody's: no certificate is made for them.
func leafs(b *boundary) outcome {
	for i := range 200 {
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
	var later atomic.Int64
	b.Pins.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	c, err := b.Secure(target{})
	if err != nil {
		return outcome{err: err}
	}
	defer c.Close()
	later.Store(int64(25 * time.Hour))
	if o := b.raw(c, getGood+authLine+"\r\n", 1)[0]; o.status != 200 {
		return outcome{err: fmt.Errorf("the open connection: %d %v", o.status, o.err)}
	}
	return connect(target{Addr: goodAddr}, "good.test")(b)
}

func crowded(b *boundary) outcome {
	b.Pins.Add("good.test", goodAddr, time.Hour)
	for i := range 10_000 {
		b.Pins.Add(hostname.Name(fmt.Sprintf("n%d.test", i)), evilAddr, 1<<31*time.Second)
	}
	if n := b.Pins.Len(); n > 4096 {
		return outcome{err: fmt.Errorf("%d pins", n)}
	}
	return connect(target{Addr: goodAddr}, "good.test")(b)
}

// foreign sends SYNs under an address that is not the guest's: they are
// dropped and counted, and the guest's own connections work.
func foreign(b *boundary) outcome {
	src := netip.MustParseAddrPort("10.99.0.77:4000")
	b.Guest.SendFrame(b.Guest.Ethernet(netstacktest.TCP(src, netip.AddrPortFrom(strayAddr, 443), 1, 0, 2)))
	o := connect(target{}, "good.test")(b)
	if b.Dialed(strayAddr) {
		return outcome{err: errors.New("the forged SYN was answered")}
	}
	if n := b.Stack.Counters().Dropped[netstack.SourceAddress]; n != 1 {
		return outcome{err: fmt.Errorf("%d packets counted", n)}
	}
	return o
}

func trailer2(b *boundary) outcome {
	c, err := b.Secure(target{})
	if err != nil {
		return outcome{err: err}
	}
	defer c.Close()
	f := b.frames(c)
	f.Head(1, false, ":method", "POST", ":scheme", "https", ":path", "/echo", ":authority", "good.test", "trailer", "x-sum")
	f.WriteData(1, false, []byte("hello"))
	f.Head(1, true, "x-sum", P)
	return f.outcome(1)
}
