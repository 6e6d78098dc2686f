package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"github.com/cutoutdev/cutout/internal/netstack/frame"
)

// Config is what a Stack is made of. Link, at least one pair of addresses and
// TCP must be given.
type Config struct {
	// Link carries the guest's frames. The Stack owns it.
	Link frame.Link
	// MTU is the largest IP packet on the link; 0: DefaultMTU.
	MTU int

	// GuestMAC is the only source that frames may have; nil: DefaultGuestMAC.
	GuestMAC net.HardwareAddr
	// GatewayMAC is the boundary's own; nil: DefaultGatewayMAC.
	GatewayMAC net.HardwareAddr

	// Guest4 and Guest6 are the only source addresses that packets may have,
	// with the length of the on-link prefix. The zero Prefix: no such family.
	Guest4, Guest6 netip.Prefix
	// Gateway4 and Gateway6 are the boundary's own addresses, in the prefixes
	// of the guest's.
	Gateway4, Gateway6 netip.Addr

	// TCP is told every connection that the guest begins, in a goroutine of
	// its own. A request that is neither accepted nor refused when TCP
	// returns is refused; an accepted connection may be used after that.
	// ctx ends when the Stack is closed, and TCP must then return.
	TCP func(ctx context.Context, r *TCPRequest)
	// DNS answers port 53 at every address. Nil: port 53 is like any other.
	DNS Resolver
	// UDP is told every datagram that is not for DNS, in the goroutine that
	// reads the link: it must not block. Nil: all are refused by ICMP.
	UDP func(ctx context.Context, r *UDPRequest)

	// Echo is told every ping to another than the gateway, in the goroutine
	// that reads the link: it must not block. Nil: all are refused by ICMP.
	Echo func(ctx context.Context, r *EchoRequest)

	// FromGuest and ToGuest bound what passes; what is over waits.
	FromGuest, ToGuest Rate
	// Limited is told that a limit was reached, by its name, as often as it
	// is: it must be quick and must not block. Nil: nobody.
	Limited func(Limit)

	// MaxTCP bounds connections, accepted and asked for; 0: 4096. The next
	// is refused.
	MaxTCP int
}

// A Resolver answers DNS queries; dns.Interceptor is one.
type Resolver interface {
	// Answer returns the response to one message, or nil for none.
	Answer(ctx context.Context, query []byte, tcp bool) []byte
	// ServeConn answers the messages on a TCP connection and closes it.
	ServeConn(ctx context.Context, conn net.Conn)
}

// DefaultMTU is the largest that virtio's host_mtu and IPv4 allow: the cost
// of a packet hardly depends on its length, so throughput is in proportion.
const DefaultMTU = 65520

// The MACs used when none are given, from the locally administered range.
var (
	DefaultGuestMAC   = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x02}
	DefaultGatewayMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x01}
)

// maxTCP is the default bound on connections: twice what the proxy takes, for
// those that it has refused and those that linger.
const maxTCP = 4096

func (c *Config) complete() error {
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if c.GuestMAC == nil {
		c.GuestMAC = DefaultGuestMAC
	}
	if c.GatewayMAC == nil {
		c.GatewayMAC = DefaultGatewayMAC
	}
	if c.MaxTCP == 0 {
		c.MaxTCP = maxTCP
	}
	switch {
	case c.Link == nil || c.TCP == nil:
		return errors.New("netstack needs a link and a TCP hook")
	case c.MTU < 1280 || c.MTU > DefaultMTU:
		return errors.New("MTU must be between 1280 and 65520") // 1280: RFC 8200 §5
	case len(c.GuestMAC) != 6 || len(c.GatewayMAC) != 6:
		return errors.New("a MAC has six bytes")
	case !c.Guest4.IsValid() && !c.Guest6.IsValid():
		return errors.New("netstack needs an address for the guest")
	case c.Guest4.IsValid() && !(c.Guest4.Addr().Is4() && onLink(c.Guest4, c.Gateway4)):
		return errors.New("invalid IPv4 addresses of guest and gateway")
	case c.Guest6.IsValid() && !(c.Guest6.Addr().Is6() && !c.Guest6.Addr().Is4In6() && onLink(c.Guest6, c.Gateway6)):
		return errors.New("invalid IPv6 addresses of guest and gateway")
	}
	return nil
}

func onLink(guest netip.Prefix, gateway netip.Addr) bool {
	return guest.Contains(gateway) && guest.Addr() != gateway
}
