package attack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
	world "github.com/cutoutdev/cutout/internal/testnet/boundary"
)

// A10, A19, E2: what a guest may say below TCP.
var sectionPackets = append(append([]probe{
	{entry: "E2", name: "a frame of length 0, then one that ends early", run: torn, want: unanswered, only: "h1"},
}, datagrams()...), badFrames()...)

// datagrams are A10: what clients try before TCP. Each is answered by ICMP,
// and TCP works as ever.
func datagrams() []probe {
	var out []probe
	for _, x := range []struct{ name, dst string }{
		{"QUIC, IPv6", "[2606:2800::34]:443"},
		{"mDNS to its group", "224.0.0.251:5353"},
		{"mDNS, IPv6", "[ff02::fb]:5353"},
		{"NetBIOS to all", ":137"},
	} {
		out = append(out, probe{entry: "A10", name: x.name, only: "h1", want: substituted, run: func(b *boundary) outcome {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			n := b.lan()
			if x.dst[0] == ':' {
				x.dst = n.broadcast.String() + x.dst
			}
			dst := netip.MustParseAddrPort(x.dst)
			src := netip.AddrPortFrom(n.own4, 5555)
			if dst.Addr().Is6() {
				src = netip.AddrPortFrom(n.own6, 5555)
			}
			packet := netstacktest.UDP(src, dst, []byte(strings.Repeat("x", 1200)))
			frames := n.Capture(ctx)
			n.SendFrame(n.Ethernet(packet))
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

// Stray6 is the address of nobody's name, for IPv6.
var stray6 = netip.MustParseAddr("2606:2800::34")

// A packetCase is what a guest may send below TCP.
type packetCase struct {
	entry, name string
	cause       netstack.Cause // for which it is dropped
	frames      [][]byte
}

// port80 returns SYNs from the guest. Port 80 is dialled as soon as one is
// decided on.
func (n lan) port80() (syn, syn6 []byte) {
	from := func(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 4000) }
	return netstacktest.TCP(from(n.own4), netip.AddrPortFrom(strayAddr, 80), 1, 0, 2),
		netstacktest.TCP(from(n.own6), netip.AddrPortFrom(stray6, 80), 1, 0, 2)[40:]
}

// ethernet is netstacktest's, for any guest that has the usual hardware
// addresses.
func ethernet(packet []byte) []byte {
	kind := []byte{8, 0}
	if packet[0]>>4 == 6 {
		kind = []byte{0x86, 0xdd}
	}
	return slices.Concat(netstack.DefaultGatewayMAC, netstack.DefaultGuestMAC, kind, packet)
}

func packets(all ...[]byte) (frames [][]byte) {
	for _, p := range all {
		frames = append(frames, ethernet(p))
	}
	return frames
}

// bad are A19 and E2: what reaches nobody.
func (n lan) bad() []packetCase {
	me4, me6 := n.own4, n.own6
	port := func(a netip.Addr, n uint16) netip.AddrPort { return netip.AddrPortFrom(a, n) }
	syn := func() []byte { p, _ := n.port80(); return p }
	syn6 := func() []byte { _, p := n.port80(); return p }
	changed := func(p []byte, change func([]byte)) []byte { change(p); return p }
	chain := func(headers ...byte) []byte { // of eight bytes each, before a SYN
		var p []byte
		for i := range headers {
			next := byte(6)
			if i+1 < len(headers) {
				next = headers[i+1]
			}
			p = append(p, next, 0, 1, 4, 0, 0, 0, 0)
		}
		return netstacktest.IP(me6, stray6, headers[0], append(p, syn6()...))
	}
	stranger := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	fromStranger := ethernet(syn())
	copy(fromStranger[6:], stranger)
	return []packetCase{
		{"E2", "a runt", netstack.Malformed, [][]byte{slices.Concat(netstack.DefaultGatewayMAC, netstack.DefaultGuestMAC, []byte{8})}},
		{"E2", "half an IP header", netstack.Malformed, packets(syn()[:11])},
		{"E2", "a length beyond the frame", netstack.Malformed, packets(resum(changed(syn(), func(p []byte) { p[2] = 0xff })))},
		{"E2", "a header shorter than its least", netstack.Malformed, packets(changed(syn(), func(p []byte) { p[0] = 0x44 }))},
		{"E2", "a wrong checksum of IP", netstack.Malformed, packets(changed(syn(), func(p []byte) { p[10] ^= 0xff }))},
		{"E2", "a wrong checksum of TCP", netstack.Malformed, packets(changed(syn(), func(p []byte) { p[36] ^= 0xff }))},
		{"E2", "a wrong checksum of UDP", netstack.Checksum, packets(changed(netstacktest.UDP(port(me4, 4000), port(strayAddr, 4000), []byte("hello")), func(p []byte) { p[26] ^= 0xff }))},
		{"E2", "no checksum of UDP over IPv6", netstack.Checksum, packets(changed(netstacktest.UDP(port(me6, 4000), port(stray6, 4000), []byte("hello")), func(p []byte) { p[46], p[47] = 0, 0 }))},
		{"E2", "IP version 9", netstack.Malformed, packets(changed(syn(), func(p []byte) { p[0] = 0x95 }))},
		{"E2", "TTL 0", netstack.Malformed, packets(resum(changed(syn(), func(p []byte) { p[8] = 0 })))},
		{"E2", "hop limit 0", netstack.Malformed, packets(changed(netstacktest.IP(me6, stray6, 6, syn6()), func(p []byte) { p[7] = 0 }))},
		{"E2", "a loose source route", netstack.Protocol, packets(options(syn(), 131, 7, 4, 93, 184, 216, 99, 0))},
		{"E2", "a strict source route", netstack.Protocol, packets(options(syn(), 137, 7, 4, 93, 184, 216, 99, 0))},
		{"E2", "a record of the route", netstack.Protocol, packets(options(syn(), 7, 7, 4, 0, 0, 0, 0, 0))},
		{"E2", "options without end", netstack.Protocol, packets(options(syn(), 7, 255, 1, 1))},
		{"E2", "fragments that overlap", netstack.Malformed, packets(fragment(syn(), 0, 16, true), fragment(syn(), 8, 20, false))},
		{"E2", "a fragment inside another", netstack.Malformed, packets(fragment(syn(), 0, 16, true), fragment(syn(), 8, 16, true), fragment(syn(), 16, 20, false))},
		{"E2", "a fragment beyond 64 KB", netstack.Malformed, packets(resum(changed(fragment(syn(), 0, 20, false), func(p []byte) { p[6], p[7] = 0x1f, 0xff })))},
		{"E2", "fragments that overlap, IPv6", netstack.Malformed, packets(n.fragment6(syn6(), 0, 16, true), n.fragment6(syn6(), 8, 20, false))},
		{"E2", "half an IPv6 header", netstack.Malformed, packets(netstacktest.IP(me6, stray6, 6, nil)[:30])},
		{"E2", "hop-by-hop options", netstack.Protocol, packets(chain(0))},
		{"E2", "destination options", netstack.Protocol, packets(chain(60))},
		{"E2", "a routing header", netstack.Protocol, packets(chain(43))},
		{"E2", "twenty headers", netstack.Protocol, packets(chain(60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60))},
		{"E2", "a header behind a fragment's", netstack.Protocol, packets(chain(44, 60))},
		{"E2", "a mobility header", netstack.Protocol, packets(chain(135))},
		{"E2", "an unknown header", netstack.Protocol, packets(chain(253))},
		{"A19", "another MAC", netstack.SourceMAC, [][]byte{fromStranger}},
		{"A19", "another address", netstack.SourceAddress, packets(netstacktest.TCP(netip.MustParseAddrPort("10.99.0.77:4000"), port(strayAddr, 80), 1, 0, 2))},
		{"A19", "another address, IPv6", netstack.SourceAddress, packets(netstacktest.TCP(netip.MustParseAddrPort("[fd99::77]:4000"), port(stray6, 80), 1, 0, 2))},
		{"A19", "the gateway's address", netstack.SourceAddress, packets(netstacktest.TCP(port(n.gateway4, 4000), port(strayAddr, 80), 1, 0, 2))},
		{"A19", "ARP: the gateway is here", netstack.Neighbor, [][]byte{netstacktest.ARP(2, netstack.DefaultGuestMAC, n.gateway4, netstack.DefaultGatewayMAC, n.gateway4)}},
		{"A19", "ARP: the guest's address is with a stranger", netstack.SourceMAC, [][]byte{netstacktest.ARP(2, stranger, me4, netstack.DefaultGatewayMAC, n.gateway4)}},
		{"A19", "ARP: who is the neighbour", netstack.Neighbor, [][]byte{netstacktest.ARP(1, netstack.DefaultGuestMAC, me4, make(net.HardwareAddr, 6), netip.MustParseAddr("10.99.0.3"))}},
		{"A19", "ND: the gateway is here", netstack.Neighbor, packets(netstacktest.ICMP(me6, n.gateway6, append(append([]byte{136, 0, 0, 0, 0xa0, 0, 0, 0}, n.gateway6.AsSlice()...), 2, 1, 2, 0, 0, 0, 0, 2)))},
		{"A19", "ND: a router", netstack.Neighbor, packets(netstacktest.ICMP(me6, netip.MustParseAddr("ff02::1"), make134()))},
		{"A19", "ND: a redirect", netstack.Neighbor, packets(netstacktest.ICMP(me6, n.gateway6, append(append([]byte{137, 0, 0, 0, 0, 0, 0, 0}, stray6.AsSlice()...), stray6.AsSlice()...)))},
		{"A19", "DHCP: an offer", netstack.Datagram, packets(netstacktest.UDP(port(me4, 67), netip.MustParseAddrPort("255.255.255.255:68"), make([]byte, 300)))},
		{"A19", "DHCPv6: an advertisement", netstack.Datagram, packets(netstacktest.UDP(port(me6, 547), netip.MustParseAddrPort("[ff02::1:2]:546"), make([]byte, 100)))},
	}
}

// good are packets of E2 that are unusual and reach somebody.
func (n lan) good() []packetCase {
	syn, syn6 := n.port80()
	return []packetCase{
		{"E2", "a SYN in order", 0, packets(syn)},
		{"E2", "a SYN in fragments that fit", 0, packets(fragment(syn, 0, 16, true), fragment(syn, 16, 20, false))},
		{"E2", "a SYN in fragments, IPv6", 0, packets(n.fragment6(syn6, 0, 16, true), n.fragment6(syn6, 16, 20, false))},
		{"E2", "a SYN in fragments, last one first", 0, packets(fragment(syn, 16, 20, false), fragment(syn, 0, 16, true))},
	}
}

// badFrames sends each: it is dropped and counted for its cause.
func badFrames() []probe {
	var out []probe
	for i, x := range nowhere.bad() {
		out = append(out, probe{entry: x.entry, name: x.name, only: "h1", want: substituted, run: func(b *boundary) outcome {
			if !listening(b) {
				return outcome{err: errors.New("nobody is there to be reached")}
			}
			before := b.Dropped(x.cause)
			for _, f := range b.lan().bad()[i].frames {
				if b.Way == world.Tap && len(f) < 14 {
					panic(inapplicable("a TAP device takes no frame that is shorter than its header"))
				}
				b.guest().SendFrame(f)
			}
			o := connect(target{}, "good.test")(b) // behind it on the cable
			if b.Dialed(strayAddr) || b.Dialed(stray6) {
				return outcome{err: errors.New("it has reached somebody")}
			}
			if n := b.Dropped(x.cause) - before; n == 0 {
				return outcome{err: fmt.Errorf("it was not counted as %s", x.cause)}
			}
			return o
		}})
	}
	for i, x := range nowhere.good() {
		out = append(out, probe{entry: x.entry, name: x.name, only: "h1", want: substituted, run: func(b *boundary) outcome {
			for _, f := range b.lan().good()[i].frames {
				b.guest().SendFrame(f)
			}
			o := connect(target{}, "good.test")(b)
			if !b.Dialed(strayAddr) && !b.Dialed(stray6) {
				return outcome{err: errors.New("it was not taken for one")}
			}
			return o
		}})
	}
	return out
}

// listening reports whether the addresses that no packet of badFrames may
// reach can be reached.
func listening(b *boundary) bool {
	b.Routes.Set(netip.AddrPortFrom(stray6, 80), b.Plain.Addr())
	return b.Plain.Addr().IsValid()
}

// make134 is a router advertisement, RFC 4861 §4.2.
func make134() []byte { return append([]byte{134, 0, 0, 0, 64, 0, 0xff, 0xff}, make([]byte, 8)...) }

// resum corrects the checksum of an IPv4 header.
func resum(ip []byte) []byte {
	ip[10], ip[11] = 0, 0
	var n uint32
	for i := 0; i < int(ip[0]&15)*4; i += 2 {
		n += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(n))
	return ip
}

// options puts options, of a length that four divides, into an IPv4 packet.
func options(ip []byte, opts ...byte) []byte {
	out := append(append(slices.Clone(ip[:20]), opts...), ip[20:]...)
	out[0] += byte(len(opts) / 4)
	binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
	return resum(out)
}

// fragment is a part of an IPv4 packet's payload.
func fragment(ip []byte, from, to int, more bool) []byte {
	out := append(slices.Clone(ip[:20]), ip[20+from:20+to]...)
	binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
	binary.BigEndian.PutUint16(out[4:], 77)
	offset := uint16(from / 8)
	if more {
		offset |= 1 << 13
	}
	binary.BigEndian.PutUint16(out[6:], offset)
	return resum(out)
}

// fragment6 is a part of a TCP segment to stray6 over IPv6.
func (n lan) fragment6(segment []byte, from, to int, more bool) []byte {
	head := []byte{6, 0, 0, 0, 0, 0, 0, 77}
	binary.BigEndian.PutUint16(head[2:], uint16(from))
	if more {
		head[3] |= 1
	}
	return netstacktest.IP(n.own6, stray6, 44, append(head, segment[from:to]...))
}

// torn breaks the framing of the cable itself: the boundary ends, or goes on,
// but nothing is sent anywhere.
func torn(b *boundary) outcome {
	if err := b.guest().SendRaw(make([]byte, 4)); errors.Is(err, errors.ErrUnsupported) {
		panic(inapplicable("a TAP device has no framing"))
	}
	b.guest().SendRaw([]byte{0xff, 0xff, 0xff, 0xff, 1, 2, 3})
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if c, err := b.guest().Dial(ctx, "tcp", netip.AddrPortFrom(strayAddr, 443)); err == nil {
		c.Close()
		return outcome{err: errors.New("the boundary goes on behind a length of 2^32-1")}
	}
	return outcome{}
}
