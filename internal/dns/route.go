package dns

import (
	"net"
	"net/netip"
)

// An address of each family that a machine with that family reaches: of the
// server a.root-servers.net. Nothing is sent there.
var (
	global4 = netip.MustParseAddr("198.41.0.4")
	global6 = netip.MustParseAddr("2001:503:ba3e::2:30")
)

// Lacks reports whether this machine has no way to a because it lacks the
// family, and has the other: a guest that was given such an address would try
// it first, in vain. A machine without any network lacks neither, so that its
// user sees what it is that fails.
func Lacks(a netip.Addr) bool {
	other := global4
	if a.Is4() {
		other = global6
	}
	return !routed(a) && routed(other)
}

// routed asks the kernel for a route; connecting a datagram socket sends
// nothing.
func routed(a netip.Addr) bool {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 53)))
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
