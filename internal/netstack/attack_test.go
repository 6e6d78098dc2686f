package netstack_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
)

var (
	guest4 = netstacktest.Guest4.Addr()
	guest6 = netstacktest.Guest6.Addr()
	gw4    = netstacktest.Gateway4
	gw6    = netstacktest.Gateway6
)

const syn = 0x02

// A world counts what reaches the hooks.
type world struct {
	guest *netstacktest.Guest
	stack *netstack.Stack
	tcp   atomic.Int32
	dns   atomic.Int32
}

// Answer makes a world a netstack.Resolver.
func (w *world) Answer(_ context.Context, q []byte, _ bool) []byte {
	w.dns.Add(1)
	return append([]byte("re:"), q...)
}

func (w *world) ServeConn(_ context.Context, c net.Conn) {
	w.dns.Add(1)
	c.Write([]byte("tcp"))
}

func newWorld(t testing.TB, cfg netstack.Config) *world {
	w := &world{}
	cfg.DNS = w
	cfg.TCP = func(_ context.Context, r *netstack.TCPRequest) { w.tcp.Add(1) }
	w.guest, w.stack = netstacktest.Start(t, cfg)
	return w
}

// settle waits until everything that was sent has been judged: an ARP
// question behind it has been answered.
func (w *world) settle(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	frames := w.guest.Capture(ctx)
	w.guest.SendFrame(netstacktest.ARP(1, netstack.DefaultGuestMAC, guest4, make([]byte, 6), gw4))
	for {
		select {
		case b := <-frames:
			if b[12] == 0x08 && b[13] == 0x06 {
				return
			}
		case <-time.After(5 * time.Second):
			t.Fatal("the gateway does not answer ARP")
		}
	}
}

func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// A19: the guest is somebody else.
func TestSpoofing(t *testing.T) {
	other4, other6 := netip.MustParseAddr("10.99.0.77"), netip.MustParseAddr("fd99::77")
	otherMAC := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	remote4, remote6 := at(server4.Addr(), 443), at(server6.Addr(), 443)
	own := func(g *netstacktest.Guest) []byte {
		return g.Ethernet(netstacktest.TCP(at(guest4, 999), remote4, 1, 0, syn))
	}
	advert := func(target netip.Addr) []byte { // unsolicited, with a link address
		body := append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, target.AsSlice()...)
		return append(append(body, 2, 1), otherMAC...)
	}
	tests := map[string]struct {
		frame func(g *netstacktest.Guest) []byte
		cause netstack.Cause
	}{
		"foreign MAC": {func(g *netstacktest.Guest) []byte {
			b := own(g)
			copy(b[6:], otherMAC)
			return b
		}, netstack.SourceMAC},
		"the gateway's MAC": {func(g *netstacktest.Guest) []byte {
			b := own(g)
			copy(b[6:], netstack.DefaultGatewayMAC)
			return b
		}, netstack.SourceMAC},
		"to a foreign MAC": {func(g *netstacktest.Guest) []byte {
			b := own(g)
			copy(b, otherMAC)
			return b
		}, netstack.Destination},
		"foreign source, IPv4": {func(g *netstacktest.Guest) []byte {
			return g.Ethernet(netstacktest.TCP(at(other4, 999), remote4, 1, 0, syn))
		}, netstack.SourceAddress},
		"foreign source, IPv6": {func(g *netstacktest.Guest) []byte {
			return g.Ethernet(netstacktest.TCP(at(other6, 999), remote6, 1, 0, syn))
		}, netstack.SourceAddress},
		"the gateway's source": {func(g *netstacktest.Guest) []byte {
			return g.Ethernet(netstacktest.TCP(at(gw4, 999), remote4, 1, 0, syn))
		}, netstack.SourceAddress},
		"a server's source to the guest": {func(g *netstacktest.Guest) []byte {
			return g.Ethernet(netstacktest.TCP(remote4, at(guest4, 999), 1, 0, syn))
		}, netstack.SourceAddress},
		"to itself": {func(g *netstacktest.Guest) []byte {
			return g.Ethernet(netstacktest.TCP(at(guest4, 999), at(guest4, 80), 1, 0, syn))
		}, netstack.Destination},
		"DHCP": {func(g *netstacktest.Guest) []byte {
			return g.Ethernet(netstacktest.UDP(netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), make([]byte, 300)))
		}, netstack.SourceAddress},
		"rogue DHCP server": {func(g *netstacktest.Guest) []byte {
			return g.Ethernet(netstacktest.UDP(at(gw4, 67), netip.MustParseAddrPort("255.255.255.255:68"), make([]byte, 300)))
		}, netstack.SourceAddress},
		"ARP claims the gateway": {func(*netstacktest.Guest) []byte {
			return netstacktest.ARP(2, netstack.DefaultGuestMAC, gw4, netstack.DefaultGatewayMAC, guest4)
		}, netstack.Neighbor},
		"ARP announces another": {func(*netstacktest.Guest) []byte {
			return netstacktest.ARP(1, netstack.DefaultGuestMAC, other4, make([]byte, 6), other4)
		}, netstack.Neighbor},
		"ARP from another MAC inside": {func(*netstacktest.Guest) []byte {
			b := netstacktest.ARP(1, otherMAC, guest4, make([]byte, 6), gw4)
			copy(b[6:], netstack.DefaultGuestMAC)
			return b
		}, netstack.Neighbor},
		"ARP for a neighbour": {func(*netstacktest.Guest) []byte {
			return netstacktest.ARP(1, netstack.DefaultGuestMAC, guest4, make([]byte, 6), other4)
		}, netstack.Neighbor},
		"ND claims the gateway": {func(g *netstacktest.Guest) []byte {
			return g.Ethernet(netstacktest.ICMP(guest6, netip.IPv6LinkLocalAllNodes(), advert(gw6)))
		}, netstack.Neighbor},
		"router advertisement": {func(g *netstacktest.Guest) []byte {
			return g.Ethernet(netstacktest.ICMP(netip.MustParseAddr("fe80::1"), netip.IPv6LinkLocalAllNodes(), append([]byte{134, 0, 0, 0}, make([]byte, 12)...)))
		}, netstack.Neighbor},
		"redirect": {func(g *netstacktest.Guest) []byte {
			return g.Ethernet(netstacktest.ICMP(gw6, guest6, append([]byte{137, 0, 0, 0}, make([]byte, 36)...)))
		}, netstack.Neighbor},
		"VLAN tag": {func(g *netstacktest.Guest) []byte {
			b := own(g)
			return append(b[:12:12], append([]byte{0x81, 0, 0, 1}, b[12:]...)...)
		}, netstack.Protocol},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, netstack.Config{})
			if err := w.guest.SendFrame(test.frame(w.guest)); err != nil {
				t.Fatal(err)
			}
			w.settle(t)
			if n := w.stack.Counters().Dropped; n[test.cause] != 1 || len(n) != 1 {
				t.Errorf("dropped %v, want one %v", n, test.cause)
			}
			if w.tcp.Load() != 0 || w.dns.Load() != 0 {
				t.Error("it reached a hook")
			}
			// Nothing was learnt: the guest's own traffic is answered as ever.
			if _, err := w.guest.Dial(within(t, 5*time.Second), "tcp", remote4); err == nil || w.tcp.Load() != 1 {
				t.Errorf("afterwards: %v, %d requests", err, w.tcp.Load())
			}
		})
	}
}

// A flood of what is refused uses up the allowance for ICMP errors, and must
// not take ARP and ND with it.
func TestFloodKeepsNeighbors(t *testing.T) {
	w := newWorld(t, netstack.Config{})
	frame := w.guest.Ethernet(netstacktest.UDP(at(guest4, 5555), at(server4.Addr(), 443), []byte("x")))
	for range 3000 {
		w.guest.SendFrame(frame)
	}
	w.settle(t)
	c := w.stack.Counters()
	if c.Dropped[netstack.Datagram] != 3000 || c.FramesOut > 2500 {
		t.Errorf("%d refused, %d answers", c.Dropped[netstack.Datagram], c.FramesOut)
	}
	for range 3000 {
		w.settle(t)
	}
}

// isUnreachable reports whether b is an ICMP "destination unreachable" that
// quotes packet.
func isUnreachable(b, packet []byte) bool {
	b = b[14:]
	switch b[0] >> 4 {
	case 4:
		return b[9] == 1 && b[20] == 3 && bytes.HasPrefix(packet, b[28:])
	case 6:
		return b[6] == 58 && b[40] == 1 && bytes.HasPrefix(packet, b[48:])
	}
	return false
}

// A10: what clients try before TCP, and everything that is neither TCP nor
// DNS, is refused within a round trip.
func TestRefusedByICMP(t *testing.T) {
	udp := func(to string) func() []byte {
		dst := netip.MustParseAddrPort(to)
		src := at(guest4, 5555)
		if dst.Addr().Is6() {
			src = at(guest6, 5555)
		}
		return func() []byte { return netstacktest.UDP(src, dst, bytes.Repeat([]byte("x"), 1200)) }
	}
	echo4, echo6 := []byte{8, 0, 0, 0, 0, 1, 0, 1, 'p'}, []byte{128, 0, 0, 0, 0, 1, 0, 1, 'p'}
	tests := map[string]func() []byte{
		"QUIC":              udp("192.0.2.7:443"),
		"QUIC, IPv6":        udp("[2001:db8::7]:443"),
		"DoQ":               udp("192.0.2.7:853"),
		"DoQ, IPv6":         udp("[2001:db8::7]:853"),
		"NTP":               udp("192.0.2.7:123"),
		"mDNS":              udp("224.0.0.251:5353"),
		"mDNS, IPv6":        udp("[ff02::fb]:5353"),
		"mDNS, unicast":     udp("192.0.2.7:5353"),
		"LLMNR":             udp("224.0.0.252:5355"),
		"LLMNR, IPv6":       udp("[ff02::1:3]:5355"),
		"NetBIOS":           udp("10.99.0.255:137"),
		"NetBIOS, unicast":  udp("192.0.2.7:137"),
		"SSDP":              udp("239.255.255.250:1900"),
		"broadcast":         udp("255.255.255.255:9"),
		"DNS to a group":    udp("224.0.0.251:53"),
		"the gateway":       udp("10.99.0.1:99"),
		"ping to a server":  func() []byte { return netstacktest.ICMP(guest4, server4.Addr(), echo4) },
		"ping to a server6": func() []byte { return netstacktest.ICMP(guest6, server6.Addr(), echo6) },
		"SCTP":              func() []byte { return netstacktest.IP(guest4, server4.Addr(), 132, make([]byte, 32)) },
		"GRE":               func() []byte { return netstacktest.IP(guest4, server4.Addr(), 47, make([]byte, 32)) },
		"IPv6 in IPv4":      func() []byte { return netstacktest.IP(guest4, server4.Addr(), 41, make([]byte, 60)) },
		"ESP, IPv6":         func() []byte { return netstacktest.IP(guest6, server6.Addr(), 50, make([]byte, 32)) },
		"routing header": func() []byte {
			return netstacktest.IP(guest6, server6.Addr(), 43, append([]byte{6}, make([]byte, 31)...))
		},
		"hop-by-hop header": func() []byte {
			return netstacktest.IP(guest6, server6.Addr(), 0, append([]byte{6}, make([]byte, 31)...))
		},
	}
	for name, packet := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, netstack.Config{})
			frames := w.guest.Capture(within(t, 10*time.Second))
			w.guest.SendFrame(w.guest.Ethernet(packet()))
			select {
			case b := <-frames:
				if !isUnreachable(b, packet()) {
					t.Errorf("answered by %x", b)
				}
				if !checksumsHold(b) {
					t.Errorf("bad checksum in %x", b)
				}
			case <-time.After(5 * time.Second):
				t.Error("no answer")
			}
			if w.tcp.Load() != 0 || w.dns.Load() != 0 {
				t.Error("it reached a hook")
			}
		})
	}
}

// checksumsHold adds up the IPv4 header and the ICMP message.
func checksumsHold(b []byte) bool {
	sum := func(start uint32, p []byte) uint16 {
		for i, c := range p {
			start += uint32(c) << (8 * (1 - i&1))
		}
		for start > 0xffff {
			start = start>>16 + start&0xffff
		}
		return uint16(start)
	}
	ip := b[14:]
	if ip[0]>>4 == 4 {
		return sum(0, ip[:20]) == 0xffff && sum(0, ip[20:]) == 0xffff
	}
	pseudo := append(append([]byte{}, ip[8:40]...), 0, 0, ip[4], ip[5], 0, 0, 0, 58)
	return sum(uint32(sum(0, pseudo)), ip[40:]) == 0xffff
}

// A connected socket hears of it at once, as QUIC clients need.
func TestUDPDialRefused(t *testing.T) {
	w := newWorld(t, netstack.Config{})
	for _, to := range []netip.AddrPort{at(server4.Addr(), 443), at(server6.Addr(), 443)} {
		c, err := w.guest.Dial(within(t, 5*time.Second), "udp", to)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for err == nil && time.Since(start) < 5*time.Second {
			_, err = c.Write([]byte("hello"))
			time.Sleep(time.Millisecond)
		}
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%v: %v", to, err)
		}
		c.Close()
	}
}

func TestPingGateway(t *testing.T) {
	w := newWorld(t, netstack.Config{})
	for _, p := range [][]byte{
		netstacktest.ICMP(guest4, gw4, []byte{8, 0, 0, 0, 0, 1, 0, 1, 'p', 'i'}),
		netstacktest.ICMP(guest6, gw6, []byte{128, 0, 0, 0, 0, 1, 0, 1, 'p', 'i'}),
	} {
		frames := w.guest.Capture(within(t, 5*time.Second))
		w.guest.SendFrame(w.guest.Ethernet(p))
		select {
		case b := <-frames:
			if reply := b[14+20*(int(p[0]>>4)/2-1)]; reply != 0 && reply != 129 || !bytes.HasSuffix(b, []byte("pi")) {
				t.Errorf("answered by %x", b)
			}
		case <-time.After(5 * time.Second):
			t.Error("no answer")
		}
	}
}

func TestDNSHook(t *testing.T) {
	for _, server := range []netip.AddrPort{at(gw4, 53), at(gw6, 53), netip.MustParseAddrPort("8.8.8.8:53"), netip.MustParseAddrPort("[2001:db8::53]:53")} {
		w := newWorld(t, netstack.Config{MTU: 1280})
		for _, network := range []string{"udp", "tcp"} {
			c, err := w.guest.Dial(within(t, 5*time.Second), network, server)
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(5 * time.Second))
			want := "tcp"
			if network == "udp" {
				sent := bytes.Repeat([]byte("q"), 3000) // in fragments, there and back
				c.Write(sent)
				want = "re:" + string(sent)
			}
			b := make([]byte, 5000)
			n, err := c.Read(b)
			if err != nil || string(b[:n]) != want {
				t.Errorf("%s %v: %d bytes, %v", network, server, n, err)
			}
			c.Close()
		}
		if w.tcp.Load() != 0 {
			t.Error("port 53 reached the TCP hook")
		}
	}
}

// E2: what a broken or hostile machine could send. Nothing reaches a hook,
// everything is counted, and the link goes on.
func TestMalformedFrames(t *testing.T) {
	good := func(g *netstacktest.Guest) []byte {
		return g.Ethernet(netstacktest.TCP(at(guest4, 999), server4, 1, 0, syn))
	}
	edit := func(f func(ip []byte)) func(g *netstacktest.Guest) []byte {
		return func(g *netstacktest.Guest) []byte {
			b := good(g)
			f(b[14:])
			return b
		}
	}
	dropped := map[string]func(g *netstacktest.Guest) []byte{
		"empty":             func(*netstacktest.Guest) []byte { return nil },
		"runt":              func(g *netstacktest.Guest) []byte { return good(g)[:13] },
		"header only":       func(g *netstacktest.Guest) []byte { return good(g)[:14] },
		"half an IP header": func(g *netstacktest.Guest) []byte { return good(g)[:24] },
		"cut segment":       func(g *netstacktest.Guest) []byte { return good(g)[:14+25] },
		"length too long":   edit(func(ip []byte) { binary.BigEndian.PutUint16(ip[2:], 60000) }),
		"length too short":  edit(func(ip []byte) { binary.BigEndian.PutUint16(ip[2:], 10) }),
		"header too short":  edit(func(ip []byte) { ip[0] = 0x44 }),
		"header too long":   edit(func(ip []byte) { ip[0] = 0x4f }),
		"version 5":         edit(func(ip []byte) { ip[0] = 0x55 }),
		"version 6 in IPv4": edit(func(ip []byte) { ip[0] = 0x65 }),
		"IP checksum":       edit(func(ip []byte) { ip[10]++ }),
		"TCP checksum":      edit(func(ip []byte) { ip[20+16]++ }),
		"TCP offset":        edit(func(ip []byte) { ip[20+12] = 0xf0 }),
		"short ARP": func(*netstacktest.Guest) []byte {
			return netstacktest.ARP(1, netstack.DefaultGuestMAC, guest4, make([]byte, 6), gw4)[:30]
		},
		"short ICMP": func(g *netstacktest.Guest) []byte {
			return g.Ethernet(netstacktest.IP(guest4, gw4, 1, []byte{8, 0, 0}))
		},
		"short ICMPv6": func(g *netstacktest.Guest) []byte {
			return g.Ethernet(netstacktest.IP(guest6, gw6, 58, []byte{135, 0}))
		},
		"short solicitation": func(g *netstacktest.Guest) []byte {
			return g.Ethernet(netstacktest.IP(guest6, gw6, 58, []byte{135, 0, 0, 0, 0, 0, 0, 0, 1}))
		},
		"short UDP": func(g *netstacktest.Guest) []byte {
			return g.Ethernet(netstacktest.IP(guest4, server4.Addr(), 17, []byte{0, 1, 0}))
		},
		"short fragment": func(g *netstacktest.Guest) []byte {
			return g.Ethernet(netstacktest.IP(guest6, server6.Addr(), 44, []byte{6, 0}))
		},
		"IPv6 jumbo": func(g *netstacktest.Guest) []byte {
			b := g.Ethernet(netstacktest.IP(guest6, server6.Addr(), 6, make([]byte, 20)))
			binary.BigEndian.PutUint16(b[14+4:], 65535)
			return b
		},
		"DNS with a bad checksum": func(g *netstacktest.Guest) []byte {
			b := g.Ethernet(netstacktest.UDP(at(guest4, 999), at(gw4, 53), []byte("query")))
			b[14+20+6]++
			return b
		},
		"TTL 0":          edit(func(ip []byte) { ip[8] = 0; checksummed(ip) }),
		"a source route": func(g *netstacktest.Guest) []byte { return g.Ethernet(sourceRouted(good(g)[14:])) },
		"hop limit 0": func(g *netstacktest.Guest) []byte {
			b := g.Ethernet(netstacktest.TCP(at(guest6, 999), server6, 1, 0, syn))
			b[14+7] = 0
			return b
		},
		"solicitation from afar": func(g *netstacktest.Guest) []byte {
			p := netstacktest.ICMP(guest6, gw6, append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, gw6.AsSlice()...))
			p[7] = 64
			return g.Ethernet(p)
		},
		"TCP to a group": func(g *netstacktest.Guest) []byte {
			return g.Ethernet(netstacktest.TCP(at(guest4, 999), netip.MustParseAddrPort("224.0.0.1:80"), 1, 0, syn))
		},
	}
	for name, frame := range dropped {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, netstack.Config{})
			w.guest.SendFrame(frame(w.guest))
			w.settle(t)
			total := uint64(0)
			for _, n := range w.stack.Counters().Dropped {
				total += n
			}
			if total == 0 {
				t.Error("not counted")
			}
			if w.tcp.Load() != 0 || w.dns.Load() != 0 {
				t.Error("it reached a hook")
			}
		})
	}
	t.Run("length of 2^32-1", func(t *testing.T) {
		w := newWorld(t, netstack.Config{})
		w.guest.SendRaw([]byte{0xff, 0xff, 0xff, 0xff, 1, 2, 3})
		select {
		case <-w.stack.Done():
		case <-time.After(5 * time.Second):
			t.Fatal("the link goes on behind a length that cannot be")
		}
		if w.stack.Counters().Dropped[netstack.Malformed] != 1 {
			t.Error("not counted")
		}
	})
	t.Run("truncated", func(t *testing.T) {
		w := newWorld(t, netstack.Config{})
		w.guest.SendRaw([]byte{0, 0, 0, 60, 1, 2, 3})
		w.guest.Close()
		select {
		case <-w.stack.Done():
		case <-time.After(5 * time.Second):
			t.Fatal("the link goes on after its end")
		}
	})
}

// checksummed sets the checksum of an IPv4 header.
func checksummed(ip []byte) {
	h := header.IPv4(ip)
	h.SetChecksum(0)
	h.SetChecksum(^h.CalculateChecksum())
}

// sourceRouted is an IPv4 packet that asks to go another way.
func sourceRouted(ip []byte) []byte {
	option := []byte{131, 7, 4, 192, 0, 2, 1, 0}
	out := append(append(append([]byte(nil), ip[:20]...), option...), ip[20:]...)
	out[0] += byte(len(option) / 4)
	binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
	checksummed(out)
	return out
}

// Overlapping fragments must not turn into a packet that no rule saw.
func TestFragments(t *testing.T) {
	w := newWorld(t, netstack.Config{})
	whole := netstacktest.UDP(at(guest4, 999), at(gw4, 53), bytes.Repeat([]byte("q"), 64))
	fragment := func(offset, length int, more bool, fill byte) []byte {
		b := netstacktest.IP(guest4, gw4, 17, append([]byte(nil), whole[20+offset:20+offset+length]...))
		if fill != 0 {
			for i := range b[20:] {
				b[20+i] = fill
			}
		}
		flags := uint16(offset / 8)
		if more {
			flags |= 0x2000
		}
		binary.BigEndian.PutUint16(b[4:], 77)
		binary.BigEndian.PutUint16(b[6:], flags)
		b[10], b[11] = 0, 0
		sum := uint32(0)
		for i := 0; i < 20; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		sum = sum>>16 + sum&0xffff
		binary.BigEndian.PutUint16(b[10:], ^uint16(sum+sum>>16))
		return w.guest.Ethernet(b)
	}
	for _, f := range [][]byte{fragment(0, 32, true, 0), fragment(24, 32, true, 'x'), fragment(32, 40, false, 0)} {
		w.guest.SendFrame(f)
	}
	w.settle(t)
	if w.dns.Load() != 0 {
		t.Error("overlapping fragments were put together")
	}
}

// B15: a flood of half-open connections is bounded, and a real client gets
// through when it is over.
func TestSYNFlood(t *testing.T) {
	var hooks, most atomic.Int32
	release := make(chan struct{})
	g, s := netstacktest.Start(t, netstack.Config{TCP: func(ctx context.Context, r *netstack.TCPRequest) {
		most.Store(max(most.Load(), hooks.Add(1)))
		defer hooks.Add(-1)
		select {
		case <-release:
		case <-ctx.Done():
		}
	}})
	for n := range 5000 {
		g.SendFrame(g.Ethernet(netstacktest.TCP(at(guest4, uint16(1024+n)), server4, 1, 0, syn)))
	}
	deadline := time.Now().Add(10 * time.Second)
	for s.Counters().FramesIn < 5000 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	c := s.Counters()
	if n := most.Load(); n > 1024 || n < 1000 || c.Dropped[netstack.TooManyPending] < 3900 {
		t.Errorf("%d requests at once, dropped %v", n, c.Dropped)
	}
	close(release)
	if _, err := g.Dial(within(t, 10*time.Second), "tcp", server6); err == nil {
		t.Error("accepted")
	}
}
