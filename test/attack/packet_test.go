package attack

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
)

// A10, E2: what a guest may say below TCP.
var sectionPackets = append(append([]probe{
	{entry: "E2", name: "a frame of length 0, then one that ends early", run: torn, want: want{status: []int{0, 200}, value: false}, only: "h1"},
}, datagrams()...), badFrames()...)

// datagrams are A10: what clients try before TCP. Each is answered by ICMP,
// and TCP works as ever.
func datagrams() []probe {
	var out []probe
	for _, x := range []struct{ name, dst string }{
		{"QUIC, IPv6", "[2606:2800::34]:443"},
		{"mDNS to its group", "224.0.0.251:5353"},
		{"mDNS, IPv6", "[ff02::fb]:5353"},
		{"NetBIOS to all", "10.99.0.255:137"},
	} {
		out = append(out, probe{entry: "A10", name: x.name, only: "h1", want: substituted, run: func(b *boundary) outcome {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			dst := netip.MustParseAddrPort(x.dst)
			src := netip.AddrPortFrom(netstacktest.Guest4.Addr(), 5555)
			if dst.Addr().Is6() {
				src = netip.AddrPortFrom(netstacktest.Guest6.Addr(), 5555)
			}
			packet := netstacktest.UDP(src, dst, []byte(strings.Repeat("x", 1200)))
			frames := b.Guest.Capture(ctx)
			b.Guest.SendFrame(b.Guest.Ethernet(packet))
			for {
				select {
				case got := <-frames:
					if quotes(got, packet) {
						return connect(target{}, "good.test")(b)
					}
				case <-ctx.Done():
					return outcome{err: errors.New("no ICMP error")}
				}
			}
		}})
	}
	return out
}

// quotes reports whether a frame is an ICMP error, destination unreachable,
// about packet.
func quotes(frame, packet []byte) bool {
	if len(frame) < 14+56 {
		return false
	}
	ip := frame[14:]
	switch ip[0] >> 4 {
	case 4:
		return ip[9] == 1 && ip[20] == 3 && strings.HasPrefix(string(packet), string(ip[28:48]))
	case 6:
		return ip[6] == 58 && ip[40] == 1 && strings.HasPrefix(string(packet), string(ip[48:]))
	}
	return false
}

// badFrames are E2: each is counted and dropped, and reaches nobody.
func badFrames() []probe {
	syn := func() []byte {
		return netstacktest.TCP(netip.AddrPortFrom(netstacktest.Guest4.Addr(), 4000), netip.AddrPortFrom(strayAddr, 443), 1, 0, 2)
	}
	sum := func(ip []byte) []byte { // of an IPv4 header, anew
		ip[10], ip[11] = 0, 0
		var n uint32
		for i := 0; i < int(ip[0]&15)*4; i += 2 {
			n += uint32(binary.BigEndian.Uint16(ip[i:]))
		}
		n = n>>16 + n&0xffff
		binary.BigEndian.PutUint16(ip[10:], ^uint16(n+n>>16))
		return ip
	}
	var out []probe
	for _, x := range []struct {
		name  string
		frame func(b *boundary) []byte
	}{
		{"a runt", func(b *boundary) []byte { return b.Guest.Ethernet(nil)[:13] }},
		{"half an IP header", func(b *boundary) []byte { return b.Guest.Ethernet(syn()[:11]) }},
		{"a length beyond the frame", func(b *boundary) []byte { p := syn(); p[2] = 0xff; return b.Guest.Ethernet(sum(p)) }},
		{"a header shorter than its least", func(b *boundary) []byte { p := syn(); p[0] = 0x44; return b.Guest.Ethernet(p) }},
		{"a wrong checksum of IP", func(b *boundary) []byte { p := syn(); p[10] ^= 0xff; return b.Guest.Ethernet(p) }},
		{"a wrong checksum of TCP", func(b *boundary) []byte { p := syn(); p[36] ^= 0xff; return b.Guest.Ethernet(p) }},
		{"IP version 9", func(b *boundary) []byte { p := syn(); p[0] = 0x95; return b.Guest.Ethernet(p) }},
		{"half an IPv6 header", func(b *boundary) []byte {
			return b.Guest.Ethernet(netstacktest.IP(netstacktest.Guest6.Addr(), netip.MustParseAddr("2606:2800::34"), 6, nil)[:30])
		}},
		{"a chain of IPv6 headers", func(b *boundary) []byte {
			return b.Guest.Ethernet(netstacktest.IP(netstacktest.Guest6.Addr(), netip.MustParseAddr("2606:2800::34"), 0, append([]byte{43}, make([]byte, 63)...)))
		}},
	} {
		out = append(out, probe{entry: "E2", name: x.name, only: "h1", want: substituted, run: func(b *boundary) outcome {
			b.Guest.SendFrame(x.frame(b))
			o := connect(target{}, "good.test")(b) // behind it on the cable
			if b.Dialed(strayAddr) {
				return outcome{err: errors.New("it was taken for a SYN")}
			}
			if n := b.Stack.Counters().Dropped; len(n) == 0 {
				return outcome{err: errors.New("nothing was counted")}
			}
			return o
		}})
	}
	return out
}

// torn breaks the framing of the cable itself: the boundary ends, or goes on,
// but nothing is sent anywhere.
func torn(b *boundary) outcome {
	b.Guest.SendRaw(make([]byte, 4))
	b.Guest.SendRaw([]byte{0xff, 0xff, 0xff, 0xff, 1, 2, 3})
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if c, err := b.Guest.Dial(ctx, "tcp", netip.AddrPortFrom(strayAddr, 443)); err == nil {
		c.Close()
		return outcome{err: errors.New("the boundary goes on behind a length of 2^32-1")}
	}
	return outcome{}
}
