package netstacktest

import (
	"errors"
	"io"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/frame"
)

// Forward is what a boundary's speed is compared with: gVisor's stack and its
// TCP forwarder on the link, with no decision, filter or limit, which sends
// every connection to one address. It returns when the link ends.
func Forward(frames frame.Link, gateway netip.Prefix, to netip.AddrPort) error {
	l := newLink(frames, netstack.DefaultMTU, netstack.DefaultGatewayMAC)
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 4 << 20}
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 4 << 20}
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &send, &receive} {
		s.SetTransportProtocolOption(tcp.ProtocolNumber, o)
	}
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(s, 1<<20, 1024, func(r *tcp.ForwarderRequest) {
		up, err := net.Dial("tcp", to.String())
		if err != nil {
			r.Complete(true)
			return
		}
		var wq waiter.Queue
		ep, terr := r.CreateEndpoint(&wq)
		r.Complete(terr != nil)
		if terr != nil {
			up.Close()
			return
		}
		guest := gonet.NewTCPConn(&wq, ep)
		go func() {
			io.Copy(guest, up)
			guest.CloseWrite()
		}()
		io.Copy(up, guest)
		up.(*net.TCPConn).CloseWrite()
	}).HandlePacket)
	if err := s.CreateNIC(nicID, l); err != nil {
		return errors.New(err.String())
	}
	s.SetSpoofing(nicID, true)
	s.SetPromiscuousMode(nicID, true)
	s.AddProtocolAddress(nicID, tcpip.ProtocolAddress{
		Protocol:          ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: address(gateway.Addr()), PrefixLen: gateway.Bits()},
	}, stack.AddressProperties{})
	s.AddRoute(tcpip.Route{Destination: header.IPv4EmptySubnet, NIC: nicID})
	l.read()
	return nil
}
