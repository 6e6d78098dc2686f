// Package ingress publishes ports of the guest on this machine.
//
// Whoever connects to one is judged by the network rules for ingress, by its
// address, and then joined with the guest: an end of one direction, a reset
// and back-pressure reach the other side, and a port that is closed in the
// guest resets its peer. Nothing is looked into: no placeholder and no value
// has a part in it. The guest sees its gateway as the peer.
package ingress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/conntrack"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/relay"
	"github.com/cutoutdev/cutout/internal/splice"
)

// maxConns is how many connections may come in at once: an eighth of what
// the guest's network stack has room for, so that no crowd outside keeps the
// guest itself from connecting.
const maxConns = 512

// A Port is a port of the guest that is published.
type Port struct {
	Protocol policy.Protocol `json:"protocol"` // tcp or udp
	Listen   netip.AddrPort  `json:"listen"`   // on this machine; port 0 = any free one
	Guest    uint16          `json:"guest"`
}

// String is the port as users write it.
func (p Port) String() string {
	return fmt.Sprintf("%s:%d/%s", p.Listen, p.Guest, p.Protocol)
}

// A ListenError says that a port cannot be published.
type ListenError struct {
	Port Port
	Err  error // of the system
}

func (e *ListenError) Error() string { return fmt.Sprintf("publish %s: %v", e.Port, e.Err) }
func (e *ListenError) Unwrap() error { return e.Err }

// Config is what a Server works with. All but Conns is needed.
type Config struct {
	Network *policy.Network
	Audit   func(audit.Event)
	Conns   *conntrack.Table
	// Guest lists the guest's addresses, the first to be tried first.
	Guest []netip.Addr
	// DialTCP and DialUDP connect to an address of the guest's. A port where
	// nobody listens is ECONNREFUSED.
	DialTCP func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	DialUDP func(to netip.AddrPort) (net.Conn, error)
}

// A Server has the published ports of one sandbox open.
type Server struct {
	cfg   Config
	ports []Port
	tcp   []*net.TCPListener // by index of ports; nil for the other protocol
	udp   []*net.UDPConn
	relay *relay.Relay

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	open    atomic.Int64 // connections
}

// Listen opens ports. Who connects waits until Serve is called.
func Listen(ports []Port) (*Server, error) {
	s := &Server{}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for _, p := range ports {
		if err := s.listen(p); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

func (s *Server) listen(p Port) error {
	family := "6" // never IPv4 beside it: that has a flag of its own
	if p.Listen.Addr().Is4() {
		family = "4"
	}
	var l *net.TCPListener
	var u *net.UDPConn
	var err error
	if p.Protocol == policy.UDP {
		if u, err = net.ListenUDP("udp"+family, net.UDPAddrFromAddrPort(p.Listen)); err == nil {
			p.Listen = u.LocalAddr().(*net.UDPAddr).AddrPort()
		}
	} else if l, err = net.ListenTCP("tcp"+family, net.TCPAddrFromAddrPort(p.Listen)); err == nil {
		p.Listen = l.Addr().(*net.TCPAddr).AddrPort()
	}
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok {
			err = op.Err // without the address, which is said once
		}
		return &ListenError{p, err}
	}
	s.ports, s.tcp, s.udp = append(s.ports, p), append(s.tcp, l), append(s.udp, u)
	return nil
}

// Ports returns what is published, with the ports that were chosen.
func (s *Server) Ports() []Port { return s.ports }

// Serve begins to accept. It must be called once.
func (s *Server) Serve(cfg Config) {
	s.cfg = cfg
	s.relay = relay.New(relay.Config{
		Network: cfg.Network, Direction: policy.Ingress, Audit: cfg.Audit, Conns: cfg.Conns,
		Dial: func(_ policy.Protocol, dst netip.AddrPort) (relay.Socket, error) { return cfg.DialUDP(dst) },
	})
	for i, p := range s.ports {
		s.running.Go(func() {
			if s.tcp[i] != nil {
				s.accept(s.tcp[i], p)
			} else {
				s.receive(s.udp[i], p)
			}
		})
	}
}

// Close ends every connection with a reset and waits until nothing is left.
func (s *Server) Close() {
	s.cancel()
	for i := range s.ports {
		if s.tcp[i] != nil {
			s.tcp[i].Close()
		} else {
			s.udp[i].Close()
		}
	}
	s.running.Wait()
	if s.relay != nil {
		s.relay.Close()
	}
}

// retry is how long to wait where a socket fails for a lack of this machine's:
// file descriptors, memory.
const retry = 50 * time.Millisecond

func (s *Server) pause() {
	select {
	case <-s.ctx.Done():
	case <-time.After(retry):
	}
}

func (s *Server) event(p Port, peer netip.Addr, e audit.Event) {
	e.Src, e.Dst = peer.String(), p.Listen.String()
	if e.Detail == "" {
		e.Detail = fmt.Sprintf("port %d of the guest, %s", p.Guest, p.Protocol)
	}
	s.cfg.Audit(e)
}

// accept serves a port until it is closed.
func (s *Server) accept(l *net.TCPListener, p Port) {
	for s.ctx.Err() == nil {
		conn, err := l.AcceptTCP()
		if err != nil {
			s.pause()
			continue
		}
		s.running.Go(func() { s.serve(conn, p) })
	}
}

// serve judges one connection and joins it with the guest.
func (s *Server) serve(conn *net.TCPConn, p Port) {
	defer s.open.Add(-1)
	full := s.open.Add(1) > maxConns
	peer := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	v := s.cfg.Network.Decide(policy.Query{Direction: policy.Ingress, Protocol: policy.TCP, Addr: peer.WithZone(""), Port: p.Guest})
	if v.Allowed && full {
		v.Allowed, v.Reason = false, policy.LimitReached
	}
	if !v.Allowed {
		splice.Reset(conn)
		s.event(p, peer, audit.Event{Event: audit.Denied, Reason: v.Reason, Rule: v.Rule})
		return
	}
	entry := s.cfg.Conns.Add(conntrack.Flow{
		Direction: policy.Ingress, Protocol: policy.TCP, Src: netip.AddrPortFrom(peer, uint16(conn.RemoteAddr().(*net.TCPAddr).Port)),
		Dst: p.Listen, Rule: v.Rule, State: conntrack.Opening,
	})
	defer entry.Close()
	guest, err := s.dial(p.Guest)
	if err != nil {
		splice.Reset(conn)
		s.event(p, peer, audit.Event{Event: audit.Denied, Reason: policy.UpstreamFailed, Rule: v.Rule, Detail: err.Error()})
		return
	}
	s.event(p, peer, audit.Event{Event: audit.Admitted, Rule: v.Rule})
	defer context.AfterFunc(s.ctx, func() { splice.Reset(conn); splice.Reset(guest) })()
	entry.Becomes(conntrack.Spliced)
	splice.Join(conn, entry.Wrap(guest))
}

// dial connects to a port of the guest's, at the first of its addresses where
// somebody listens: a server may have but one family.
func (s *Server) dial(port uint16) (conn net.Conn, err error) {
	for _, a := range s.cfg.Guest {
		if conn, err = s.cfg.DialTCP(s.ctx, netip.AddrPortFrom(a, port)); !errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
	}
	return conn, err
}

// receive serves a port until it is closed.
func (s *Server) receive(u *net.UDPConn, p Port) {
	buf := make([]byte, 1<<16)
	for s.ctx.Err() == nil {
		n, peer, err := u.ReadFromUDPAddrPort(buf)
		if err != nil {
			s.pause()
			continue
		}
		s.relay.Datagram(relay.Datagram{
			Src: netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port()), Dst: netip.AddrPortFrom(s.cfg.Guest[0], p.Guest), Via: p.Listen,
			Payload: buf[:n],
			Reply:   func(b []byte) error { _, err := u.WriteToUDPAddrPort(b, peer); return err },
			Refuse:  func() {}, // there is no way to tell a peer
		})
	}
}
