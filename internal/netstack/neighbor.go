package netstack

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// judgeARP answers the guest's question for the gateway, RFC 826. Everything
// else (questions for others, announcements, replies) has no effect, because
// nothing is learnt.
func (f *filter) judgeARP(b []byte) pass {
	arp := header.ARP(b[ethernetLen:])
	if len(arp) < header.ARPSize || !arp.IsValid() {
		return f.drop(Malformed)
	}
	sender, _ := netip.AddrFromSlice(arp.ProtocolAddressSender())
	target, _ := netip.AddrFromSlice(arp.ProtocolAddressTarget())
	probe := sender.IsUnspecified() // RFC 5227: "is anybody using this address?"
	switch {
	case !bytes.Equal(arp.HardwareAddressSender(), f.guestMAC[:]), sender != f.guest4 && !probe:
		return f.drop(Neighbor)
	case arp.Op() != header.ARPRequest, target != f.gateway4:
		if target == f.guest4 { // probe or announcement of its own address
			return pass{}
		}
		return f.drop(Neighbor)
	}
	reply := f.ethernet(header.ARPProtocolNumber, header.ARPSize)
	out := header.ARP(reply[ethernetLen:])
	out.SetIPv4OverEthernet()
	out.SetOp(header.ARPReply)
	copy(out.HardwareAddressSender(), f.gatewayMAC[:])
	copy(out.ProtocolAddressSender(), target.AsSlice())
	copy(out.HardwareAddressTarget(), f.guestMAC[:])
	copy(out.ProtocolAddressTarget(), sender.AsSlice())
	return pass{reply: reply}
}

// judgeND answers neighbour solicitations for the gateway, RFC 4861 §7.2. It
// reports false for ICMPv6 that is not neighbour or router discovery.
func (f *filter) judgeND(p packet, src netip.Addr) (pass, bool) {
	if len(p.payload) < header.ICMPv6MinimumSize {
		return f.drop(Malformed), true
	}
	switch header.ICMPv6(p.payload).Type() {
	case header.ICMPv6NeighborSolicit:
		return f.judgeSolicit(p, src), true
	case header.ICMPv6RouterSolicit, header.ICMPv6MulticastListenerQuery, header.ICMPv6MulticastListenerReport,
		header.ICMPv6MulticastListenerV2Report, header.ICMPv6MulticastListenerDone:
		return pass{}, true // usual, and there is nobody to hear it
	case header.ICMPv6NeighborAdvert:
		// Unsolicited, since nothing asks; without effect, since nothing is
		// learnt. Announcing its own address is a guest's right.
		if len(p.payload) >= header.ICMPv6NeighborAdvertMinimumSize {
			target := header.NDPNeighborAdvert(p.payload[header.ICMPv6HeaderSize:]).TargetAddress()
			if a := netip.AddrFrom16(target.As16()); a == f.guest6 || a.IsLinkLocalUnicast() {
				return pass{}, true
			}
		}
		return f.drop(Neighbor), true
	case header.ICMPv6RouterAdvert, header.ICMPv6RedirectMsg:
		return f.drop(Neighbor), true
	}
	return pass{}, false
}

func (f *filter) judgeSolicit(p packet, src netip.Addr) pass {
	const size = header.ICMPv6NeighborSolicitMinimumSize
	if len(p.payload) < size {
		return f.drop(Malformed)
	}
	target := netip.AddrFrom16(header.NDPNeighborSolicit(p.payload[header.ICMPv6HeaderSize:]).TargetAddress().As16())
	switch {
	case src.IsUnspecified(): // duplicate address detection of the guest's own
		if target != f.gateway6 {
			return pass{}
		}
	case src != f.guest6 && !src.IsLinkLocalUnicast():
		return f.drop(SourceAddress)
	}
	// RFC 4861 §7.1.1: the hop limit proves that no router was in between.
	if target != f.gateway6 || header.IPv6(p.raw).HopLimit() != 255 {
		return f.drop(Neighbor)
	}
	return pass{reply: f.advert(src)}
}

// advert is a neighbour advertisement of the gateway's address to guest, or
// to all nodes if guest has no address yet.
func (f *filter) advert(guest netip.Addr) []byte {
	const size = header.ICMPv6NeighborAdvertMinimumSize + 8 // with the target's link address
	solicited := !guest.IsUnspecified()
	if !solicited {
		guest = netip.IPv6LinkLocalAllNodes()
	}
	body := make([]byte, size)
	body[0] = byte(header.ICMPv6NeighborAdvert)
	na := header.NDPNeighborAdvert(body[header.ICMPv6HeaderSize:])
	na.SetSolicitedFlag(solicited)
	na.SetOverrideFlag(true)
	na.SetRouterFlag(true)
	na.SetTargetAddress(tcpip.AddrFrom16(f.gateway6.As16()))
	option := body[header.ICMPv6NeighborAdvertMinimumSize:]
	option[0], option[1] = 2, 1 // target link-layer address, one unit of eight bytes
	copy(option[2:], f.gatewayMAC[:])
	return f.icmp6(f.gateway6, guest, body)
}

// ethernet returns an empty frame to the guest with room for n bytes.
func (f *filter) ethernet(proto tcpip.NetworkProtocolNumber, n int) []byte {
	b := make([]byte, ethernetLen+n)
	copy(b, f.guestMAC[:])
	copy(b[6:], f.gatewayMAC[:])
	binary.BigEndian.PutUint16(b[12:], uint16(proto))
	return b
}

// icmp6 is a frame with an ICMPv6 message, whose checksum is set.
func (f *filter) icmp6(src, dst netip.Addr, body []byte) []byte {
	b := f.ethernet(header.IPv6ProtocolNumber, header.IPv6MinimumSize+len(body))
	from, to := tcpip.AddrFrom16(src.As16()), tcpip.AddrFrom16(dst.As16())
	header.IPv6(b[ethernetLen:]).Encode(&header.IPv6Fields{
		PayloadLength: uint16(len(body)), TransportProtocol: header.ICMPv6ProtocolNumber,
		HopLimit: 255, SrcAddr: from, DstAddr: to,
	})
	pseudo := header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, from, to, uint16(len(body)))
	binary.BigEndian.PutUint16(body[2:], ^checksum.Checksum(body, pseudo))
	copy(b[ethernetLen+header.IPv6MinimumSize:], body)
	return b
}
