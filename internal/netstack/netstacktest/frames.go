package netstacktest

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/cutoutdev/cutout/internal/netstack/frame"
)

const ethernetLen = header.EthernetMinimumSize

// SendFrame sends one Ethernet frame as it is.
func (g *Guest) SendFrame(b []byte) error {
	return g.link.frames.WriteFrames(1, func(int) [][]byte { return [][]byte{b} })
}

// SendRaw writes bytes to the cable past the framing, where there is one.
func (g *Guest) SendRaw(b []byte) error {
	if g.cable == nil {
		return errors.ErrUnsupported
	}
	_, err := g.cable.Write(b)
	return err
}

// Capture returns frames that come from the boundary from now on, copies,
// until ctx ends. Frames that are not taken in time are lost.
func (g *Guest) Capture(ctx context.Context) <-chan []byte {
	c := make(chan []byte, 256)
	g.link.taps.Store(c, struct{}{})
	context.AfterFunc(ctx, func() { g.link.taps.Delete(c) })
	return c
}

// Ethernet returns a frame from the guest to the gateway with an IP packet.
func (g *Guest) Ethernet(packet []byte) []byte {
	b := append(append(append([]byte(nil), g.cfg.GatewayMAC...), g.cfg.GuestMAC...), 0x08, 0x00)
	if len(packet) > 0 && packet[0]>>4 == 6 {
		b[12], b[13] = 0x86, 0xdd
	}
	return append(b, packet...)
}

// IP returns an IP packet with a correct header.
func IP(src, dst netip.Addr, proto byte, payload []byte) []byte {
	if src.Is4() {
		b := make([]byte, header.IPv4MinimumSize, header.IPv4MinimumSize+len(payload))
		ip := header.IPv4(b)
		ip.Encode(&header.IPv4Fields{
			TotalLength: uint16(len(b) + len(payload)), TTL: 64, Protocol: proto, SrcAddr: address(src), DstAddr: address(dst),
		})
		ip.SetChecksum(^ip.CalculateChecksum())
		return append(b, payload...)
	}
	b := make([]byte, header.IPv6MinimumSize, header.IPv6MinimumSize+len(payload))
	header.IPv6(b).Encode(&header.IPv6Fields{
		PayloadLength: uint16(len(payload)), TransportProtocol: tcpip.TransportProtocolNumber(proto), HopLimit: 255,
		SrcAddr: tcpip.AddrFrom16(src.As16()), DstAddr: tcpip.AddrFrom16(dst.As16()),
	})
	return append(b, payload...)
}

// UDP returns an IP packet with a datagram.
func UDP(src, dst netip.AddrPort, payload []byte) []byte {
	b := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(b, src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(payload)))
	b = append(b, payload...)
	binary.BigEndian.PutUint16(b[6:], transportSum(src.Addr(), dst.Addr(), 17, b))
	return IP(src.Addr(), dst.Addr(), 17, b)
}

// TCP returns an IP packet with a segment of flags and no payload.
func TCP(src, dst netip.AddrPort, seq, ack uint32, flags byte) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13] = 5<<4, flags
	binary.BigEndian.PutUint16(b[14:], 0xffff)
	binary.BigEndian.PutUint16(b[16:], transportSum(src.Addr(), dst.Addr(), 6, b))
	return IP(src.Addr(), dst.Addr(), 6, b)
}

// ICMP returns an IP packet with an ICMP or ICMPv6 message; the checksum in
// body is filled in.
func ICMP(src, dst netip.Addr, body []byte) []byte {
	b := append([]byte(nil), body...)
	if src.Is4() {
		binary.BigEndian.PutUint16(b[2:], ^checksum.Checksum(b, 0))
		return IP(src, dst, 1, b)
	}
	binary.BigEndian.PutUint16(b[2:], transportSum(src, dst, 58, b))
	return IP(src, dst, 58, b)
}

// ARP returns the frame of an ARP packet for IPv4 over Ethernet.
func ARP(op uint16, srcMAC net.HardwareAddr, srcIP netip.Addr, dstMAC net.HardwareAddr, dstIP netip.Addr) []byte {
	to := dstMAC
	if op == 1 {
		to = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	b := append(append(append([]byte(nil), to...), srcMAC...), 0x08, 0x06, 0, 1, 8, 0, 6, 4, byte(op>>8), byte(op))
	b = append(append(b, srcMAC...), srcIP.AsSlice()...)
	return append(append(b, dstMAC...), dstIP.AsSlice()...)
}

func transportSum(src, dst netip.Addr, proto byte, b []byte) uint16 {
	pseudo := header.PseudoHeaderChecksum(tcpip.TransportProtocolNumber(proto), address(src), address(dst), uint16(len(b)))
	return ^checksum.Checksum(b, pseudo)
}

// link is one end of the cable.
type link struct {
	frames     frame.Link
	mtu        uint32
	mac        tcpip.LinkAddress
	dispatcher atomic.Pointer[stack.NetworkDispatcher]
	taps       sync.Map // chan []byte → struct{}
	done       chan struct{}
}

func newLink(frames frame.Link, mtu int, mac net.HardwareAddr) *link {
	return &link{frames: frames, mtu: uint32(mtu), mac: tcpip.LinkAddress(mac), done: make(chan struct{})}
}

func (l *link) read() {
	defer close(l.done)
	for {
		b, err := l.frames.Next()
		if err != nil {
			return
		}
		l.taps.Range(func(c, _ any) bool {
			select {
			case c.(chan []byte) <- append([]byte(nil), b...):
			default:
			}
			return true
		})
		d := l.dispatcher.Load()
		if d == nil || len(b) < ethernetLen {
			continue
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(buffer.NewViewWithData(b))})
		eth, _ := pkt.LinkHeader().Consume(ethernetLen)
		(*d).DeliverNetworkPacket(header.Ethernet(eth).Type(), pkt)
		pkt.DecRef()
	}
}

func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	list := pkts.AsSlice()
	if err := l.frames.WriteFrames(len(list), func(i int) [][]byte { return list[i].AsSlices() }); err != nil {
		return 0, &tcpip.ErrAborted{}
	}
	return len(list), nil
}

func (l *link) AddHeader(pkt *stack.PacketBuffer) {
	header.Ethernet(pkt.LinkHeader().Push(ethernetLen)).Encode(&header.EthernetFields{
		SrcAddr: l.mac, DstAddr: pkt.EgressRoute.RemoteLinkAddress, Type: pkt.NetworkProtocolNumber,
	})
}

func (l *link) ParseHeader(pkt *stack.PacketBuffer) bool {
	_, ok := pkt.LinkHeader().Consume(ethernetLen)
	return ok
}

func (l *link) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.dispatcher.Store(nil)
		return
	}
	l.dispatcher.Store(&d)
}

func (l *link) IsAttached() bool                        { return l.dispatcher.Load() != nil }
func (l *link) Close()                                  { l.frames.Close() }
func (l *link) Wait()                                   { <-l.done }
func (l *link) MTU() uint32                             { return l.mtu }
func (l *link) SetMTU(uint32)                           {}
func (l *link) MaxHeaderLength() uint16                 { return ethernetLen }
func (l *link) LinkAddress() tcpip.LinkAddress          { return l.mac }
func (l *link) SetLinkAddress(tcpip.LinkAddress)        {}
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }
func (l *link) SetOnCloseAction(func())                 {}
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityResolutionRequired
}
