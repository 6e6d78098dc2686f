package relay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/cutoutdev/cutout/internal/policy"
)

// errNoPing: Linux lets a program ping only if its group is in
// net.ipv4.ping_group_range.
var errNoPing = errors.New("this machine lets the keeper send no pings: see the sysctl net.ipv4.ping_group_range")

func dial(p policy.Protocol, dst netip.AddrPort) (Socket, error) {
	if p == policy.ICMP {
		return dialEcho(dst.Addr())
	}
	return net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(dst))
}

// refused reports whether the peer's machine said that nobody listens.
func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// An echoSocket is a ping socket for one peer. The kernel chooses the id and
// hears answers with it alone.
type echoSocket struct {
	*icmp.PacketConn
	peer netip.Addr
}

func dialEcho(dst netip.Addr) (Socket, error) {
	network, any := "udp4", "0.0.0.0"
	if dst.Is6() {
		network, any = "udp6", "::"
	}
	c, err := icmp.ListenPacket(network, any)
	if errors.Is(err, os.ErrPermission) {
		return nil, errNoPing
	}
	if err != nil {
		return nil, fmt.Errorf("open ping socket: %w", err)
	}
	return echoSocket{c, dst}, nil
}

func (s echoSocket) Write(b []byte) (int, error) {
	return s.PacketConn.WriteTo(b, &net.UDPAddr{IP: s.peer.AsSlice()})
}

// Read returns messages of the peer's alone.
func (s echoSocket) Read(b []byte) (int, error) {
	for {
		n, from, err := s.PacketConn.ReadFrom(b)
		if err != nil {
			return 0, err
		}
		if u, ok := from.(*net.UDPAddr); ok && u.AddrPort().Addr().Unmap() == s.peer {
			return n, nil
		}
	}
}

func (s echoSocket) SetReadDeadline(t time.Time) error { return s.PacketConn.SetReadDeadline(t) }

// echo is the message of a request; the kernel fills in id and checksum.
func echo(dst netip.Addr, seq uint16, payload []byte) []byte {
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{Seq: int(seq), Data: payload}}
	if dst.Is6() {
		m.Type = ipv6.ICMPTypeEchoRequest
	}
	b, _ := m.Marshal(nil) // fails for no echo
	return b
}

// parseEcho reads an answer, of either family.
func parseEcho(b []byte) (seq uint16, payload []byte, ok bool) {
	if len(b) < 8 || b[0] != 0 && b[0] != byte(ipv6.ICMPTypeEchoReply) {
		return 0, nil, false
	}
	return uint16(b[6])<<8 | uint16(b[7]), b[8:], true
}
