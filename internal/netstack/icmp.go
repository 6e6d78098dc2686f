package netstack

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// unreachable is a kind of "destination unreachable": the codes of RFC 792
// and RFC 1812 §5.2.7.1, and of RFC 4443 §3.1.
type unreachable struct{ code4, code6 byte }

var (
	noPort     = unreachable{3, 4}  // a connected socket sees ECONNREFUSED
	prohibited = unreachable{13, 1} // administratively
	noProtocol = unreachable{2, 1}
)

// The longest quotations of the packet refused: RFC 1812 §4.3.2.3 and
// RFC 4443 §3.1 bound the whole message.
const (
	maxQuote4 = 576 - header.IPv4MinimumSize - 8
	maxQuote6 = 1280 - header.IPv6MinimumSize - 8
)

// unreachable is the frame that tells the guest that packet, a valid IP
// packet of its own, goes nowhere; nil for a later fragment. It comes from the
// address that the guest spoke to or, for a group, from the gateway.
func (f *filter) unreachable(packet []byte, why unreachable) []byte {
	if header.IPVersion(packet) == header.IPv6Version {
		return f.unreachable6(packet, why)
	}
	ip := header.IPv4(packet)
	if ip.FragmentOffset() != 0 {
		return nil
	}
	from := netip.AddrFrom4(ip.DestinationAddress().As4())
	if from.IsMulticast() || from == f.broadcast4 || from == broadcast {
		from = f.gateway4
	}
	quote := packet[:min(len(packet), maxQuote4)]
	size := header.IPv4MinimumSize + 8 + len(quote)
	b := f.ethernet(header.IPv4ProtocolNumber, size)
	out := header.IPv4(b[ethernetLen:])
	out.Encode(&header.IPv4Fields{
		TotalLength: uint16(size), TTL: 64, Protocol: uint8(header.ICMPv4ProtocolNumber),
		SrcAddr: tcpip.AddrFrom4(from.As4()), DstAddr: ip.SourceAddress(),
	})
	out.SetChecksum(^out.CalculateChecksum())
	body := out.Payload()
	body[0], body[1] = byte(header.ICMPv4DstUnreachable), why.code4
	copy(body[8:], quote)
	binary.BigEndian.PutUint16(body[2:], ^checksum.Checksum(body, 0))
	return b
}

func (f *filter) unreachable6(packet []byte, why unreachable) []byte {
	ip := header.IPv6(packet)
	from := netip.AddrFrom16(ip.DestinationAddress().As16())
	if from.IsMulticast() {
		from = f.gateway6
	}
	quote := packet[:min(len(packet), maxQuote6)]
	body := make([]byte, 8+len(quote))
	body[0], body[1] = byte(header.ICMPv6DstUnreachable), why.code6
	copy(body[8:], quote)
	return f.icmp6(from, netip.AddrFrom16(ip.SourceAddress().As16()), body)
}
