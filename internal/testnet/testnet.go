// Package testnet is a small internet on loopback for tests, the demo and
// the bench: a certificate authority, servers that record exactly what
// reached them and can echo it in every place that a server can, and a DNS
// server with a zone. All of them are real and listen on real sockets.
//
// It promises nothing about secrecy: what an upstream receives is kept in
// clear, which is its purpose. Nothing outside tests, examples and bench may
// import it.
package testnet

import (
	"net"
	"net/netip"
)

// listen binds addr, or a free port of 127.0.0.1 if addr is zero.
func listen(addr netip.AddrPort) (net.Listener, error) {
	if !addr.IsValid() {
		addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	}
	return net.Listen("tcp", addr.String())
}

func addrPort(a net.Addr) netip.AddrPort {
	ap, _ := netip.ParseAddrPort(a.String())
	return ap
}
