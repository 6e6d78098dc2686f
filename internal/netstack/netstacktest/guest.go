// Package netstacktest is a guest without a machine: a second TCP/IP stack at
// the other end of the boundary's cable, for tests.
//
// The guest has a real neighbour cache and real sockets of its own. It can
// also send any frame and see those that come back, to play the attacker.
package netstacktest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/frame"
)

// The addresses of a guest made by Start, unless the config has others.
var (
	Guest4   = netip.MustParsePrefix("10.99.0.2/24")
	Gateway4 = netip.MustParseAddr("10.99.0.1")
	Guest6   = netip.MustParsePrefix("fd99::2/64")
	Gateway6 = netip.MustParseAddr("fd99::1")
)

const nicID = 1

// A Guest is the machine at the other end of the cable.
type Guest struct {
	cfg   netstack.Config
	stack *stack.Stack
	link  *link
	cable net.Conn // nil: there is no framing
}

// Start returns a guest and the boundary's stack at the other end, made of
// cfg, of which only hooks need to be given. Both are closed when t ends.
func Start(t testing.TB, cfg netstack.Config) (*Guest, *netstack.Stack) {
	t.Helper()
	if !cfg.Guest4.IsValid() && !cfg.Guest6.IsValid() {
		cfg.Guest4, cfg.Gateway4, cfg.Guest6, cfg.Gateway6 = Guest4, Gateway4, Guest6, Gateway6
	}
	boundary, guest := Cable(t)
	cfg.Link = frame.NewStream(boundary)
	s, err := netstack.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	g, err := New(guest, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g, s
}

// Cable returns the two ends of a socketpair as the machine's NIC has it,
// closed when t ends.
func Cable(t testing.TB) (boundary, guest net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]net.Conn, 2)
	for i, fd := range fds {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20)
		f := os.NewFile(uintptr(fd), "cable")
		ends[i], err = net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ends[i].Close() })
	}
	return ends[0], ends[1]
}

// New returns a guest on conn, which it owns, with the guest's addresses of
// the boundary's cfg.
func New(conn net.Conn, cfg netstack.Config) (*Guest, error) {
	return plugIn(frame.NewStream(conn), conn, cfg)
}

// NewOn is New for a link on which nothing can be sent but whole frames.
func NewOn(l frame.Link, cfg netstack.Config) (*Guest, error) { return plugIn(l, nil, cfg) }

func plugIn(l frame.Link, cable net.Conn, cfg netstack.Config) (*Guest, error) {
	if cfg.MTU == 0 {
		cfg.MTU = netstack.DefaultMTU
	}
	if cfg.GuestMAC == nil {
		cfg.GuestMAC = netstack.DefaultGuestMAC
	}
	if cfg.GatewayMAC == nil {
		cfg.GatewayMAC = netstack.DefaultGatewayMAC
	}
	g := &Guest{cfg: cfg, cable: cable, link: newLink(l, cfg.MTU, cfg.GuestMAC)}
	g.stack = stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{
			tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
		},
	})
	sack := tcpip.TCPSACKEnabled(true)
	g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack)
	go g.link.read()
	if err := g.stack.CreateNIC(nicID, g.link); err != nil {
		return nil, errors.New(err.String())
	}
	for _, family := range []struct {
		guest   netip.Prefix
		gateway netip.Addr
		proto   tcpip.NetworkProtocolNumber
		all     tcpip.Subnet
	}{
		{cfg.Guest4, cfg.Gateway4, ipv4.ProtocolNumber, header.IPv4EmptySubnet},
		{cfg.Guest6, cfg.Gateway6, ipv6.ProtocolNumber, header.IPv6EmptySubnet},
	} {
		if !family.guest.IsValid() {
			continue
		}
		own := tcpip.AddressWithPrefix{Address: address(family.guest.Addr()), PrefixLen: family.guest.Bits()}
		if err := g.stack.AddProtocolAddress(nicID, tcpip.ProtocolAddress{Protocol: family.proto, AddressWithPrefix: own}, stack.AddressProperties{}); err != nil {
			return nil, errors.New(err.String())
		}
		g.stack.AddRoute(tcpip.Route{Destination: own.Subnet(), NIC: nicID})
		g.stack.AddRoute(tcpip.Route{Destination: family.all, Gateway: address(family.gateway), NIC: nicID})
	}
	return g, nil
}

// Buffers sets how much a connection that is opened from now on holds for
// each direction, so that what the boundary holds can be told from it. Windows
// of under 64 KiB are not scaled; others may stall while both directions are
// full, which is this stack's fault and not the boundary's.
func (g *Guest) Buffers(n int) {
	send := tcpip.TCPSendBufferSizeRangeOption{Min: n, Default: n, Max: n}
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: n, Default: n, Max: n}
	g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &send)
	g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &receive)
}

// Addresses returns the guest's addresses and those of its gateways.
func (g *Guest) Addresses() (own4, own6 netip.Prefix, gateway4, gateway6 netip.Addr) {
	return g.cfg.Guest4, g.cfg.Guest6, g.cfg.Gateway4, g.cfg.Gateway6
}

// Close unplugs the guest and releases everything.
func (g *Guest) Close() {
	g.link.Close()
	<-g.link.done // Destroy would wait for it with a lock that it needs
	g.stack.Destroy()
}

// Dial connects from the guest. network is "tcp" or "udp".
func (g *Guest) Dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	full := tcpip.FullAddress{NIC: nicID, Addr: address(to.Addr()), Port: to.Port()}
	proto := tcpip.NetworkProtocolNumber(ipv4.ProtocolNumber)
	if to.Addr().Unmap().Is6() {
		proto = ipv6.ProtocolNumber
	}
	switch network {
	case "tcp":
		c, err := gonet.DialContextTCP(ctx, g.stack, full, proto)
		if err != nil {
			return nil, err
		}
		return c, nil
	case "udp":
		c, err := gonet.DialUDP(g.stack, nil, &full, proto)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	return nil, fmt.Errorf("unknown network %q", network)
}

// Listen accepts connections to port at every address of the guest's.
func (g *Guest) Listen(port uint16) (net.Listener, error) {
	return gonet.ListenTCP(g.stack, tcpip.FullAddress{NIC: nicID, Port: port}, ipv6.ProtocolNumber)
}

// ListenPacket hears datagrams to port at an address of the guest's.
func (g *Guest) ListenPacket(at netip.AddrPort) (net.PacketConn, error) {
	proto := tcpip.NetworkProtocolNumber(ipv4.ProtocolNumber)
	if at.Addr().Is6() {
		proto = ipv6.ProtocolNumber
	}
	return gonet.DialUDP(g.stack, &tcpip.FullAddress{NIC: nicID, Addr: address(at.Addr()), Port: at.Port()}, nil, proto)
}

// Dialer returns a function for http.Transport's DialContext that resolves
// names with the guest's resolver, as a program in the guest would.
func (g *Guest) Dialer() func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, _, addr string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		n, err := net.LookupPort("tcp", port)
		if err != nil {
			return nil, err
		}
		addrs := []netip.Addr{}
		if a, err := netip.ParseAddr(host); err == nil {
			addrs = append(addrs, a)
		} else if addrs, err = g.Resolve(ctx, host); err != nil {
			return nil, err
		}
		var last error = errors.New("no address")
		for _, a := range addrs {
			c, err := g.Dial(ctx, "tcp", netip.AddrPortFrom(a, uint16(n)))
			if err == nil {
				return c, nil
			}
			last = err
		}
		return nil, last
	}
}

// Resolve looks name up as a program in the guest would, by DNS at the
// gateway.
func (g *Guest) Resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	return g.Resolver(netip.AddrPort{}).LookupNetIP(ctx, "ip", name)
}

// Resolver returns a resolver that asks server, whatever is there; the zero
// AddrPort: the gateway.
func (g *Guest) Resolver(server netip.AddrPort) *net.Resolver {
	if !server.IsValid() {
		gateway := g.cfg.Gateway4
		if !gateway.IsValid() {
			gateway = g.cfg.Gateway6
		}
		server = netip.AddrPortFrom(gateway, 53)
	}
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return g.Dial(ctx, network[:3], server)
		},
	}
}

func address(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.Unmap().AsSlice()) }
