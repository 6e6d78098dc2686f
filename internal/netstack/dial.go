package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// DialTCP connects to an address of the guest's, from the gateway's of the
// same family, and returns a [*Conn]. A guest that does not answer is given
// up when ctx ends, after 15 s at most. Where nobody listens the error is
// ECONNREFUSED.
func (s *Stack) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	from, proto, err := s.gatewayFor(to.Addr())
	if err != nil {
		return nil, err
	}
	if !s.enterTCP() {
		return nil, errors.New("connect to the guest: too many connections")
	}
	defer s.hooks.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	wq := new(waiter.Queue)
	ep, terr := s.stack.NewEndpoint(tcp.ProtocolNumber, proto, wq)
	if terr == nil {
		err = connect(ctx, ep, wq, from, full(to))
	} else {
		err = tcpError(terr)
	}
	if err != nil {
		s.leaveTCP()
		return nil, fmt.Errorf("connect to the guest: %w", err)
	}
	return s.newConn(ep, wq), nil
}

// connect binds ep and waits for the guest's answer. It closes ep if it
// fails.
func connect(ctx context.Context, ep tcpip.Endpoint, wq *waiter.Queue, from, to tcpip.FullAddress) error {
	answered, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&answered)
	defer wq.EventUnregister(&answered)
	terr := ep.Bind(from)
	if terr == nil {
		terr = ep.Connect(to)
	}
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ready:
			terr = ep.LastError()
		case <-ctx.Done():
			ep.Abort()
			ep.Close()
			return ctx.Err()
		}
	}
	if terr != nil {
		ep.Close()
		return tcpError(terr)
	}
	return nil
}

func tcpError(terr tcpip.Error) error {
	switch terr.(type) {
	case *tcpip.ErrConnectionRefused, *tcpip.ErrConnectionReset:
		return syscall.ECONNREFUSED
	}
	return errors.New(terr.String())
}

// DialUDP returns a socket that sends to an address of the guest's, from a
// port of its own of the gateway, and hears it alone.
func (s *Stack) DialUDP(to netip.AddrPort) (net.Conn, error) {
	from, proto, err := s.gatewayFor(to.Addr())
	if err != nil {
		return nil, err
	}
	peer := full(to)
	conn, err := gonet.DialUDP(s.stack, &from, &peer, proto)
	if err != nil {
		return nil, fmt.Errorf("open socket to the guest: %w", err)
	}
	return conn, nil
}

// gatewayFor returns the address from which the guest's to is spoken to, with
// a port of the stack's choice.
func (s *Stack) gatewayFor(to netip.Addr) (tcpip.FullAddress, tcpip.NetworkProtocolNumber, error) {
	switch {
	case !to.IsValid():
	case to == s.cfg.Guest4.Addr():
		return full(netip.AddrPortFrom(s.cfg.Gateway4, 0)), header.IPv4ProtocolNumber, nil
	case to == s.cfg.Guest6.Addr():
		return full(netip.AddrPortFrom(s.cfg.Gateway6, 0)), header.IPv6ProtocolNumber, nil
	}
	return tcpip.FullAddress{}, 0, fmt.Errorf("connect to the guest: %s is not its address", to)
}

func full(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nicID, Addr: address(a.Addr()), Port: a.Port()}
}
