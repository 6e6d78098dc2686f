// Package netstack is the guest's whole network: a user-space TCP/IP stack
// at the other end of the guest's cable, behind hooks.
//
// It promises that only frames from the guest's own MAC and address are
// heard, that nothing is learnt from the guest, that every TCP connection and
// DNS query is decided by a hook before it is answered, and that all other
// traffic is refused by ICMP or dropped and counted, in IPv4 and IPv6 alike.
// It opens no socket and touches nothing on the host: the link's two ends are
// all that talk. It has no policy of its own.
package netstack

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const nicID = 1

// A Stack is one sandbox's network. Its methods may be called from several
// goroutines.
type Stack struct {
	cfg      Config
	stack    *stack.Stack
	link     *link
	counters counters
	budget   budget
	ctx      context.Context
	cancel   context.CancelFunc
	hooks    sync.WaitGroup // running TCP and DNS hooks

	pendingTold atomic.Uint64 // half-open connections dropped so far, as told

	mu      sync.Mutex
	closed  bool
	tcp     int // requests undecided and connections open
	queries int // DNS queries being answered
	conns   map[*Conn]struct{}
}

// New starts a stack on cfg.Link, which it owns from now on, also if it
// fails.
func New(cfg Config) (*Stack, error) {
	if err := cfg.complete(); err != nil {
		if cfg.Link != nil {
			cfg.Link.Close()
		}
		return nil, err
	}
	s := &Stack{cfg: cfg, conns: make(map[*Conn]struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.link = newLink(s.ctx, &s.cfg, &s.counters)
	if cfg.Echo != nil {
		s.link.filter.echo = s.handleEcho
	}
	s.stack = stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{
			ipv4.NewProtocol,
			// No address of the guest's making: no router is believed and no
			// address is made up.
			ipv6.NewProtocolWithOptions(ipv6.Options{NDPConfigs: ipv6.NDPConfigurations{HandleRAs: ipv6.HandlingRAsDisabled}}),
		},
		TransportProtocols: []stack.TransportProtocolFactory{
			tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
		},
	})
	go s.link.read()
	if err := s.configure(); err != nil {
		s.Close()
		return nil, fmt.Errorf("start network: %w", err)
	}
	return s, nil
}

func (s *Stack) configure() error {
	var failed error
	must := func(err tcpip.Error) {
		if err != nil && failed == nil {
			failed = errors.New(err.String())
		}
	}
	s.configureTCP(must)
	// The guest may speak to any address: all of them end here.
	forwarder := tcp.NewForwarder(s.stack, 64<<10, maxPending, s.handleTCP)
	s.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, forwarder.HandlePacket)
	s.stack.SetTransportProtocolHandler(udp.ProtocolNumber, s.handleUDP)
	must(s.stack.CreateNICWithOptions(nicID, s.link, stack.NICOptions{Disabled: true}))
	must(s.stack.SetSpoofing(nicID, true))
	must(s.stack.SetPromiscuousMode(nicID, true))
	if s.cfg.Guest4.IsValid() {
		must(s.address(ipv4.ProtocolNumber, address(s.cfg.Gateway4), s.cfg.Guest4.Bits()))
		s.stack.AddRoute(tcpip.Route{Destination: header.IPv4EmptySubnet, NIC: nicID})
	}
	if s.cfg.Guest6.IsValid() {
		must(s.address(ipv6.ProtocolNumber, address(s.cfg.Gateway6), s.cfg.Guest6.Bits()))
		s.stack.AddRoute(tcpip.Route{Destination: header.IPv6EmptySubnet, NIC: nicID})
	}
	must(s.stack.EnableNIC(nicID))
	return failed
}

func (s *Stack) address(proto tcpip.NetworkProtocolNumber, a tcpip.Address, bits int) tcpip.Error {
	return s.stack.AddProtocolAddress(nicID, tcpip.ProtocolAddress{
		Protocol: proto, AddressWithPrefix: tcpip.AddressWithPrefix{Address: a, PrefixLen: bits},
	}, stack.AddressProperties{})
}

func (s *Stack) configureTCP(must func(tcpip.Error)) {
	set := func(o tcpip.SettableTransportProtocolOption) {
		must(s.stack.SetTransportProtocolOption(tcp.ProtocolNumber, o))
	}
	sack := tcpip.TCPSACKEnabled(true)
	set(&sack)
	set(&tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: maxBuffer, Max: maxBuffer})
	set(&tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: maxBuffer, Max: maxBuffer})
	// A SYN-ACK that the guest does not answer holds a place of maxPending
	// for 1+2+4+8 s.
	retries := tcpip.TCPSynRetriesOption(3)
	set(&retries)
	// The link loses nothing and reorders nothing: no old segment can turn
	// up, and a guest may use its port again at once.
	wait := tcpip.TCPTimeWaitTimeoutOption(time.Second)
	set(&wait)
	linger := tcpip.TCPLingerTimeoutOption(30 * time.Second)
	set(&linger)
}

// Done is closed when the link has ended: the machine is gone or broke the
// framing. The Stack must still be closed.
func (s *Stack) Done() <-chan struct{} { return s.link.done }

// Close ends every connection, waits for the hooks and releases everything.
func (s *Stack) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.hooks.Wait()
		return nil
	}
	s.closed = true
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()

	s.cancel()
	s.link.Close() // first: a writer may be blocked with locks held
	for c := range conns {
		c.ep.Abort()
	}
	s.stack.Close()
	s.hooks.Wait()
	// stack.Wait waits for the link with the stack's lock held, which a
	// reader in the middle of a packet needs.
	<-s.link.done
	s.stack.Wait()
	return nil
}
