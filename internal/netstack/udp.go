package netstack

import (
	"errors"
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const dnsPort = 53

// maxQueries bounds DNS queries over UDP that are being answered. One over
// the bound is dropped, as a busy resolver would, and asked again.
const maxQueries = 256

// A UDPRequest is one datagram from the guest.
type UDPRequest struct {
	Src, Dst netip.AddrPort // the guest's end; where it is to go
	Payload  []byte         // the receiver's to keep or to take off

	stack  *Stack
	header []byte // of the packet, for ICMP
}

// Take returns the payload and forgets it, so that who keeps Reply and Refuse
// for later does not keep it too.
func (r *UDPRequest) Take() []byte {
	b := r.Payload
	r.Payload = nil
	return b
}

// Reply sends a datagram from Dst to Src.
func (r *UDPRequest) Reply(b []byte) error { return r.stack.SendUDP(r.Dst, r.Src, b) }

// Refuse tells the guest that nobody is there, by ICMP port unreachable.
func (r *UDPRequest) Refuse() {
	f := r.stack.link.filter
	if b := f.refuse(Datagram, append(r.header[:len(r.header):len(r.header)], r.Payload...), noPort).reply; b != nil {
		r.stack.link.write(b)
	}
}

// handleUDP runs in the goroutine that reads the link.
func (s *Stack) handleUDP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	udp := header.UDP(pkt.TransportHeader().Slice())
	if len(udp) < header.UDPMinimumSize {
		return false
	}
	src, dst := id.RemoteAddress, id.LocalAddress
	payload := pkt.Data().AsRange().ToSlice()
	if udp.Checksum() != 0 || pkt.NetworkProtocolNumber == header.IPv6ProtocolNumber {
		if !udp.IsChecksumValid(src, dst, checksum.Checksum(payload, 0)) {
			s.counters.drop(Checksum)
			return true
		}
	}
	r := &UDPRequest{
		Src: addrPort(src, id.RemotePort), Dst: addrPort(dst, id.LocalPort), Payload: payload,
		stack: s,
	}
	switch {
	case id.LocalPort == dnsPort && s.cfg.DNS != nil:
		s.query(r)
	case s.cfg.UDP != nil:
		r.header = append(append([]byte(nil), pkt.NetworkHeader().Slice()...), udp...)
		s.cfg.UDP(s.ctx, r)
	default:
		return false
	}
	return true
}

// query answers a DNS query in a goroutine of its own.
func (s *Stack) query(r *UDPRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if s.queries >= maxQueries {
		s.counters.drop(TooManyQueries)
		s.cfg.limited(ManyQueries)()
		return
	}
	s.queries++
	s.hooks.Add(1)
	go func() {
		defer s.hooks.Done()
		if b := s.cfg.DNS.Answer(s.ctx, r.Payload, false); b != nil {
			r.Reply(b)
		}
		s.mu.Lock()
		s.queries--
		s.mu.Unlock()
	}()
}

// SendUDP sends a datagram to the guest, from any address.
func (s *Stack) SendUDP(from, to netip.AddrPort, b []byte) error {
	if len(b) > 65535-header.IPv4MinimumSize-header.UDPMinimumSize {
		return errors.New("send datagram: too long")
	}
	proto := tcpip.NetworkProtocolNumber(header.IPv4ProtocolNumber)
	if to.Addr().Is6() {
		proto = header.IPv6ProtocolNumber
	}
	route, terr := s.stack.FindRoute(nicID, address(from.Addr()), address(to.Addr()), proto, false)
	if terr != nil {
		return errors.New("send datagram: " + terr.String())
	}
	defer route.Release()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.UDPMinimumSize + int(route.MaxHeaderLength()),
		Payload:            buffer.MakeWithData(b),
	})
	defer pkt.DecRef()
	udp := header.UDP(pkt.TransportHeader().Push(header.UDPMinimumSize))
	pkt.TransportProtocolNumber = header.UDPProtocolNumber
	length := uint16(pkt.Size())
	udp.Encode(&header.UDPFields{SrcPort: from.Port(), DstPort: to.Port(), Length: length})
	sum := udp.CalculateChecksum(checksum.Combine(route.PseudoHeaderChecksum(header.UDPProtocolNumber, length), pkt.Data().Checksum()))
	if sum != 0xffff { // RFC 768: zero would mean "none"
		sum = ^sum
	}
	udp.SetChecksum(sum)
	params := stack.NetworkHeaderParams{Protocol: header.UDPProtocolNumber, TTL: 64}
	if terr := route.WritePacket(params, pkt); terr != nil {
		return errors.New("send datagram: " + terr.String())
	}
	return nil
}

func address(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.Unmap().AsSlice()) }
