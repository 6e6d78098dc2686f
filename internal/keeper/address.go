package keeper

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
)

// A plan is a sandbox's addresses. Both IPv4 halves come from 198.18.0.0/15,
// the benchmarking range (RFC 2544), which no host that a guest could want
// uses; IPv6 from a unique local prefix drawn for this sandbox (RFC 4193).
type plan struct {
	guest4, guest6     netip.Prefix
	gateway4, gateway6 netip.Addr
	ula                [8]byte // the /64 of link and names

	names map[hostname.Name][]netip.Addr    // of --connect-to, and the host's
	ports map[netip.AddrPort]netip.AddrPort // from (address of a name, port)
	owner map[netip.Addr]hostname.Name
}

// newPlan draws a link and gives every name of connectTo addresses of its
// own.
func newPlan(connectTo []ConnectTo) *plan {
	p := &plan{
		names: make(map[hostname.Name][]netip.Addr),
		ports: make(map[netip.AddrPort]netip.AddrPort),
		owner: make(map[netip.Addr]hostname.Name),
	}
	var r [8]byte
	rand.Read(r[:])
	link := 198<<24 | 19<<16 | uint32(binary.BigEndian.Uint16(r[:]))&^3 // a /30 of 198.19.0.0/16
	p.gateway4 = v4(link + 1)
	p.guest4 = netip.PrefixFrom(v4(link+2), 30)
	p.ula = [8]byte{0xfd, r[2], r[3], r[4], r[5], r[6]}
	p.gateway6 = p.v6(1)
	p.guest6 = netip.PrefixFrom(p.v6(2), 64)

	for _, c := range connectTo {
		addrs, ok := p.names[c.Name]
		if !ok {
			n := uint32(len(p.names)) + 1
			addrs = []netip.Addr{v4(198<<24 | 18<<16 | n), p.v6(1<<16 | n)}
			p.names[c.Name] = addrs
		}
		for _, a := range addrs {
			p.owner[a] = c.Name
			p.ports[netip.AddrPortFrom(a, c.Port)] = c.To
		}
	}
	if _, taken := p.names[policy.HostName]; !taken {
		p.names[policy.HostName] = []netip.Addr{hostV4, p.v6(1 << 17)}
	}
	return p
}

// hostV4 stands for this machine's loopback, far from the names' addresses.
var hostV4 = netip.AddrFrom4([4]byte{198, 18, 255, 254})

// host maps an address that stands for this machine's loopback to it.
func (p *plan) host(dst netip.AddrPort) (netip.AddrPort, bool) {
	switch dst.Addr() {
	case hostV4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dst.Port()), true
	case p.v6(1 << 17):
		return netip.AddrPortFrom(netip.IPv6Loopback(), dst.Port()), true
	}
	return netip.AddrPort{}, false
}

// own are the addresses that mean something in the sandbox alone.
func (p *plan) own() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(v4(198<<24|18<<16), 15), netip.PrefixFrom(p.v6(0), 64)}
}

func v4(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

func (p *plan) v6(n uint32) netip.Addr {
	var b [16]byte
	copy(b[:], p.ula[:])
	binary.BigEndian.PutUint32(b[12:], n)
	return netip.AddrFrom16(b)
}

// connectTo maps an address of a name to the server that stands for it.
// Only the listed ports are open.
func (p *plan) connectTo(dst netip.AddrPort) (netip.AddrPort, hostname.Name, bool) {
	to, ok := p.ports[dst]
	return to, p.owner[dst.Addr()], ok
}
