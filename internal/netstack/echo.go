package netstack

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// echoLen is the length of the header of an echo message, RFC 792.
const echoLen = 8

// An EchoRequest is a ping from the guest to another than the gateway.
type EchoRequest struct {
	Src, Dst netip.Addr
	ID, Seq  uint16
	Payload  []byte // the receiver's to keep

	stack  *Stack
	packet []byte
}

// Reply answers as Dst would. It may be called for later requests of the same
// ID too.
func (r *EchoRequest) Reply(seq uint16, payload []byte) error {
	f := r.stack.link.filter
	if r.Src.Is4() {
		size := header.IPv4MinimumSize + echoLen + len(payload)
		if size > r.stack.cfg.MTU {
			return errors.New("send echo: too long")
		}
		b := f.ethernet(header.IPv4ProtocolNumber, size)
		ip := header.IPv4(b[ethernetLen:])
		ip.Encode(&header.IPv4Fields{
			TotalLength: uint16(size), TTL: 64, Protocol: uint8(header.ICMPv4ProtocolNumber),
			SrcAddr: tcpip.AddrFrom4(r.Dst.As4()), DstAddr: tcpip.AddrFrom4(r.Src.As4()),
		})
		ip.SetChecksum(^ip.CalculateChecksum())
		r.message(ip.Payload(), byte(header.ICMPv4EchoReply), seq, payload)
		binary.BigEndian.PutUint16(ip.Payload()[2:], ^checksum.Checksum(ip.Payload(), 0))
		r.stack.link.write(b)
		return nil
	}
	if header.IPv6MinimumSize+echoLen+len(payload) > r.stack.cfg.MTU {
		return errors.New("send echo: too long")
	}
	body := make([]byte, echoLen+len(payload))
	r.message(body, byte(header.ICMPv6EchoReply), seq, payload)
	r.stack.link.write(f.icmp6(r.Dst, r.Src, body))
	return nil
}

func (r *EchoRequest) message(b []byte, kind byte, seq uint16, payload []byte) {
	b[0] = kind
	binary.BigEndian.PutUint16(b[4:], r.ID)
	binary.BigEndian.PutUint16(b[6:], seq)
	copy(b[echoLen:], payload)
}

// Refuse tells the guest that this is prohibited.
func (r *EchoRequest) Refuse() {
	if b := r.stack.link.filter.refuse(Echo, r.packet, prohibited).reply; b != nil {
		r.stack.link.write(b)
	}
}

// handleEcho runs in the goroutine that reads the link.
func (s *Stack) handleEcho(p packet) {
	sum := uint16(0)
	if p.dst.Is6() {
		ip := header.IPv6(p.raw)
		sum = header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), uint16(len(p.payload)))
	}
	if checksum.Checksum(p.payload, sum) != 0xffff {
		s.counters.drop(Checksum)
		return
	}
	raw := append([]byte(nil), p.raw...)
	payload := raw[len(raw)-len(p.payload):]
	s.cfg.Echo(s.ctx, &EchoRequest{
		Src: p.src, Dst: p.dst,
		ID: binary.BigEndian.Uint16(payload[4:]), Seq: binary.BigEndian.Uint16(payload[6:]),
		Payload: payload[echoLen:], stack: s, packet: raw,
	})
}
