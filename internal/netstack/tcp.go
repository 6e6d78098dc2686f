package netstack

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// maxPending bounds half-open connections: SYNs that wait for the hook's
// decision or for the guest's ACK. A SYN over the bound is dropped, and a
// real client sends it again.
const maxPending = 1024

// Keep-alive of the guest's side: the guest may have been killed, and a
// connection must not outlive it by more than two minutes.
const (
	keepAliveIdle     = time.Minute
	keepAliveInterval = 15 * time.Second
	keepAliveCount    = 4
)

// lingerTimeout bounds how long what was written before Close waits for a
// guest that does not read.
const lingerTimeout = 30 * time.Second

// A TCPRequest is a connection that the guest wants: its SYN is not answered
// yet. Exactly one of Accept and Refuse has an effect, the first.
type TCPRequest struct {
	Src, Dst netip.AddrPort // the guest's end; where it wants to go

	stack *Stack
	mu    sync.Mutex
	req   *tcp.ForwarderRequest // nil once decided
}

// A Conn is a TCP connection with the guest. CloseWrite sends a FIN and
// leaves the other direction open.
type Conn struct {
	*gonet.TCPConn
	ep    tcpip.Endpoint
	stack *Stack
	size  int
	once  sync.Once
}

// Accept answers the guest and returns the connection, a [*Conn].
func (r *TCPRequest) Accept() (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.req == nil {
		return nil, errors.New("accept connection: already decided")
	}
	var wq waiter.Queue
	ep, terr := r.req.CreateEndpoint(&wq)
	r.req.Complete(terr != nil)
	r.req = nil
	if terr != nil {
		r.stack.leaveTCP()
		return nil, errors.New("accept connection: " + terr.String())
	}
	return r.stack.newConn(ep, &wq), nil
}

// Refuse answers with a RST.
func (r *TCPRequest) Refuse() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.req == nil {
		return
	}
	r.stack.leaveTCP() // first: the guest may ask again as soon as it hears
	r.req.Complete(true)
	r.req = nil
}

// Read reads as the net package does: gonet's error at a deadline does not
// say that it is one.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	return n, deadlineError(err)
}

// Write writes as the net package does.
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	return n, deadlineError(err)
}

func deadlineError(err error) error {
	op, ok := err.(*net.OpError)
	if ok && op.Timeout() && !errors.Is(op.Err, os.ErrDeadlineExceeded) {
		op.Err = os.ErrDeadlineExceeded
	}
	return err
}

// Close closes both directions. What was written is still delivered.
func (c *Conn) Close() error {
	timeout := tcpip.TCPUserTimeoutOption(lingerTimeout)
	c.ep.SetSockOpt(&timeout)
	c.once.Do(c.release)
	return c.TCPConn.Close()
}

// Reset ends the connection with a RST: the guest sees that it did not end
// as it should.
func (c *Conn) Reset() {
	c.once.Do(c.release) // first, as in Refuse
	c.ep.Abort()
	c.Close()
}

func (c *Conn) release() {
	c.stack.budget.give(c.size)
	c.stack.mu.Lock()
	delete(c.stack.conns, c)
	c.stack.mu.Unlock()
	c.stack.leaveTCP()
}

func (s *Stack) newConn(ep tcpip.Endpoint, wq *waiter.Queue) *Conn {
	c := &Conn{TCPConn: gonet.NewTCPConn(wq, ep), ep: ep, stack: s, size: s.budget.take()}
	opts := ep.SocketOptions()
	// Set sizes also end auto-tuning, which would go past the budget.
	opts.SetSendBufferSize(int64(c.size), true)
	opts.SetReceiveBufferSize(int64(c.size), true)
	opts.SetDelayOption(false) // the other side's writes are already as large as they come
	idle, interval := tcpip.KeepaliveIdleOption(keepAliveIdle), tcpip.KeepaliveIntervalOption(keepAliveInterval)
	ep.SetSockOpt(&idle)
	ep.SetSockOpt(&interval)
	ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepAliveCount)
	opts.SetKeepAlive(true)

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		ep.Abort()
	} else {
		s.conns[c] = struct{}{}
	}
	return c
}

// handleTCP runs in a goroutine of its own for every SYN.
func (s *Stack) handleTCP(fr *tcp.ForwarderRequest) {
	s.tellPending()
	if !s.enterTCP() {
		fr.Complete(true)
		return
	}
	defer s.hooks.Done()
	id := fr.ID()
	r := &TCPRequest{
		Src: addrPort(id.RemoteAddress, id.RemotePort), Dst: addrPort(id.LocalAddress, id.LocalPort),
		stack: s, req: fr,
	}
	defer r.Refuse()
	if r.Dst.Port() == dnsPort && s.cfg.DNS != nil {
		if conn, err := r.Accept(); err == nil {
			s.cfg.DNS.ServeConn(s.ctx, conn)
			conn.Close()
		}
		return
	}
	s.cfg.TCP(s.ctx, r)
}

// tellPending tells if SYNs were dropped for too many half-open connections
// since it was called last: gVisor counts them and says nothing.
func (s *Stack) tellPending() {
	n := s.stack.Stats().TCP.ForwardMaxInFlightDrop.Value()
	if s.pendingTold.Swap(n) != n {
		s.cfg.limited(ManyPending)()
	}
}

// enterTCP counts a new request and its hook, unless there are too many or
// the stack is closed.
func (s *Stack) enterTCP() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.tcp >= s.cfg.MaxTCP {
		s.counters.drop(TooManyTCP)
		s.cfg.limited(ManyTCP)()
		return false
	}
	s.tcp++
	s.hooks.Add(1)
	return true
}

func (s *Stack) leaveTCP() {
	s.mu.Lock()
	s.tcp--
	s.mu.Unlock()
}

func (s *Stack) tcpOpen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tcp
}

func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return netip.AddrPortFrom(addr, port)
}
