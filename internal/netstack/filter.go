package netstack

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
)

// A filter judges every frame before the stack sees it. What passes is TCP,
// DNS, ping to the gateway and ICMP errors, from the guest's own MAC and
// address to a unicast address; all else is answered or dropped here.
type filter struct {
	counters           *counters
	guestMAC           [6]byte
	gatewayMAC         [6]byte
	guest4, guest6     netip.Addr // invalid: no such family
	gateway4, gateway6 netip.Addr
	broadcast4         netip.Addr // of the on-link prefix
	passDNS, passUDP   bool
	echo               func(packet) // takes pings to others than the gateway; nil: they are refused

	mu     sync.Mutex // guards the allowance for ICMP errors
	tokens float64
	filled time.Time
}

// ICMP errors per second and at once: enough for every client to fall back at
// once, not enough to double a flood. ARP and ND are answered without limit,
// so that a flood does not cut the guest off.
const (
	errorRate  = 2000
	errorBurst = 500
)

// pass is what becomes of a frame: delivered as proto, answered by reply, or
// dropped if both are zero.
type pass struct {
	proto tcpip.NetworkProtocolNumber
	reply []byte
}

func newFilter(cfg *Config, c *counters) *filter {
	f := &filter{
		counters: c,
		guest4:   cfg.Guest4.Addr(), guest6: cfg.Guest6.Addr(),
		gateway4: cfg.Gateway4, gateway6: cfg.Gateway6,
		passDNS: cfg.DNS != nil, passUDP: cfg.UDP != nil,
		tokens: errorBurst,
	}
	copy(f.guestMAC[:], cfg.GuestMAC)
	copy(f.gatewayMAC[:], cfg.GatewayMAC)
	if cfg.Guest4.IsValid() && cfg.Guest4.Bits() < 31 {
		base := cfg.Guest4.Addr().As4()
		host := uint32(1)<<(32-cfg.Guest4.Bits()) - 1
		binary.BigEndian.PutUint32(base[:], binary.BigEndian.Uint32(base[:])|host)
		f.broadcast4 = netip.AddrFrom4(base)
	}
	return f
}

func (f *filter) judge(b []byte) pass {
	if len(b) < ethernetLen {
		return f.drop(Malformed)
	}
	if !bytes.Equal(b[6:12], f.guestMAC[:]) {
		return f.drop(SourceMAC)
	}
	if group := b[0]&1 != 0; !group && !bytes.Equal(b[:6], f.gatewayMAC[:]) {
		return f.drop(Destination)
	}
	switch tcpip.NetworkProtocolNumber(binary.BigEndian.Uint16(b[12:])) {
	case header.ARPProtocolNumber:
		return f.judgeARP(b)
	case ipv4.ProtocolNumber:
		return f.judge4(b)
	case ipv6.ProtocolNumber:
		return f.judge6(b)
	}
	return f.drop(Protocol)
}

func (f *filter) drop(cause Cause) pass {
	f.counters.drop(cause)
	return pass{}
}

// allow spends the allowance for one ICMP error, RFC 4443 §2.4 (f).
func (f *filter) allow() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	f.tokens = min(errorBurst, f.tokens+errorRate*now.Sub(f.filled).Seconds())
	f.filled = now
	if f.tokens < 1 {
		return false
	}
	f.tokens--
	return true
}

// refuse drops the packet and tells the guest by ICMP.
func (f *filter) refuse(cause Cause, packet []byte, why unreachable) pass {
	f.counters.drop(cause)
	if !f.allow() {
		return pass{}
	}
	return pass{reply: f.unreachable(packet, why)}
}

func (f *filter) judge4(b []byte) pass {
	ip := header.IPv4(b[ethernetLen:])
	if !ip.IsValid(len(ip)) || ip.HeaderLength() < header.IPv4MinimumSize {
		return f.drop(Malformed)
	}
	if ip.TTL() == 0 { // RFC 791: to be destroyed
		return f.drop(Malformed)
	}
	ip = ip[:ip.TotalLength()]
	src, dst := netip.AddrFrom4(ip.SourceAddress().As4()), netip.AddrFrom4(ip.DestinationAddress().As4())
	if !f.guest4.IsValid() || src != f.guest4 {
		return f.drop(SourceAddress)
	}
	p := packet{
		raw: ip, payload: ip[ip.HeaderLength():], src: src, dst: dst, gateway: dst == f.gateway4,
		group: dst.IsMulticast() || dst == f.broadcast4 || dst == broadcast,
		first: ip.FragmentOffset() == 0, whole: ip.FragmentOffset() == 0 && ip.Flags()&header.IPv4FlagMoreFragments == 0,
	}
	if dst == f.guest4 || dst.IsUnspecified() {
		return f.drop(Destination)
	}
	if ip.HeaderLength() > header.IPv4MinimumSize {
		// Source routes and records of them, RFC 7126. No client sends options.
		return f.refuse(Protocol, p.raw, noProtocol)
	}
	switch ip.TransportProtocol() {
	case header.TCPProtocolNumber:
		return f.judgeTCP(p, ipv4.ProtocolNumber)
	case header.UDPProtocolNumber:
		return f.judgeUDP(p, ipv4.ProtocolNumber)
	case header.ICMPv4ProtocolNumber:
		return f.judgeICMP4(p)
	}
	return f.refuse(Protocol, p.raw, noProtocol)
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// A packet is what the rules need to know of an IP packet.
type packet struct {
	raw, payload []byte // with and without IP header
	src, dst     netip.Addr
	gateway      bool // to the gateway's own address
	group        bool // multicast or broadcast
	first        bool // not a later fragment
	whole        bool // not a fragment at all
}

func (f *filter) judgeTCP(p packet, proto tcpip.NetworkProtocolNumber) pass {
	if p.group {
		return f.drop(Destination)
	}
	return pass{proto: proto}
}

// judgeUDP answers what nobody will take by "port unreachable", which makes
// QUIC, DoQ, mDNS, LLMNR and NetBIOS clients fall back at once; for groups
// too, where RFC 1122 §3.2.2 forbids it for the sake of other hosts, of which
// there are none.
func (f *filter) judgeUDP(p packet, proto tcpip.NetworkProtocolNumber) pass {
	if !p.first {
		if p.group || !(f.passDNS || f.passUDP) {
			return f.drop(Datagram)
		}
		return pass{proto: proto}
	}
	if len(p.payload) < header.UDPMinimumSize {
		return f.drop(Malformed)
	}
	forDNS := f.passDNS && header.UDP(p.payload).DestinationPort() == dnsPort
	if !p.group && (forDNS || f.passUDP) {
		return pass{proto: proto}
	}
	return f.refuse(Datagram, p.raw, noPort)
}

func (f *filter) judgeICMP4(p packet) pass {
	if !p.first {
		if p.gateway {
			return pass{proto: ipv4.ProtocolNumber}
		}
		return f.drop(Echo)
	}
	if len(p.payload) < header.ICMPv4MinimumSize {
		return f.drop(Malformed)
	}
	switch header.ICMPv4(p.payload).Type() {
	case header.ICMPv4Echo:
		if p.gateway {
			return pass{proto: ipv4.ProtocolNumber}
		}
		return f.judgeEcho(p)
	case header.ICMPv4DstUnreachable, header.ICMPv4TimeExceeded, header.ICMPv4ParamProblem:
		if p.whole && !p.group {
			return pass{proto: ipv4.ProtocolNumber}
		}
	}
	return f.drop(Protocol)
}

// judgeEcho hands a ping on. One in fragments is refused: the link takes
// those of every length whole.
func (f *filter) judgeEcho(p packet) pass {
	if f.echo == nil || !p.whole || p.group || len(p.payload) < echoLen {
		return f.refuse(Echo, p.raw, prohibited)
	}
	f.echo(p)
	return pass{}
}

func (f *filter) judge6(b []byte) pass {
	ip := header.IPv6(b[ethernetLen:])
	if !ip.IsValid(len(ip)) {
		return f.drop(Malformed)
	}
	if ip.HopLimit() == 0 {
		return f.drop(Malformed)
	}
	ip = ip[:header.IPv6MinimumSize+int(ip.PayloadLength())]
	if !f.guest6.IsValid() {
		return f.drop(SourceAddress)
	}
	src, dst := netip.AddrFrom16(ip.SourceAddress().As16()), netip.AddrFrom16(ip.DestinationAddress().As16())
	p := packet{
		raw: ip, payload: ip[header.IPv6MinimumSize:], src: src, dst: dst, gateway: dst == f.gateway6,
		group: dst.IsMulticast(), first: true, whole: true,
	}
	next := tcpip.TransportProtocolNumber(ip.NextHeader())
	if next == header.ICMPv6ProtocolNumber {
		if neighbor, ok := f.judgeND(p, src); ok {
			return neighbor // may come from the guest's link-local address
		}
	}
	if src != f.guest6 {
		return f.drop(SourceAddress)
	}
	if dst == f.guest6 || dst.IsUnspecified() {
		return f.drop(Destination)
	}
	if next == ipv6Fragment {
		if len(p.payload) < 8 {
			return f.drop(Malformed)
		}
		next = tcpip.TransportProtocolNumber(p.payload[0])
		p.first, p.whole = binary.BigEndian.Uint16(p.payload[2:])>>3 == 0, false
		p.payload = p.payload[8:]
		// RFC 6980: neither ND nor anything else of ICMPv6 in fragments
		if next == header.ICMPv6ProtocolNumber && !p.gateway {
			return f.drop(Protocol)
		}
	}
	switch next {
	case header.TCPProtocolNumber:
		return f.judgeTCP(p, ipv6.ProtocolNumber)
	case header.UDPProtocolNumber:
		return f.judgeUDP(p, ipv6.ProtocolNumber)
	case header.ICMPv6ProtocolNumber:
		return f.judgeICMP6(p)
	}
	// Extension headers that no client sends to a server: routing headers and
	// chains made to hide the port.
	return f.refuse(Protocol, p.raw, noProtocol)
}

const ipv6Fragment = 44 // RFC 8200 §4.5

func (f *filter) judgeICMP6(p packet) pass {
	if !p.first {
		return pass{proto: ipv6.ProtocolNumber}
	}
	if len(p.payload) < header.ICMPv6MinimumSize {
		return f.drop(Malformed)
	}
	kind := header.ICMPv6(p.payload).Type()
	switch {
	case kind == header.ICMPv6EchoRequest && p.gateway:
		return pass{proto: ipv6.ProtocolNumber}
	case kind == header.ICMPv6EchoRequest && !p.group:
		return f.judgeEcho(p)
	case kind <= header.ICMPv6ParamProblem && p.whole && !p.group:
		return pass{proto: ipv6.ProtocolNumber}
	}
	return f.drop(Protocol)
}
