// Package forward lets programs that take a proxy reach the boundary: a
// server for HTTP CONNECT (RFC 9110 §9.3.6) and SOCKS5 (RFC 1928) on one port.
//
// It demands a credential, so that nobody else on the machine is served. It
// resolves no name and dials nothing itself: what a client asks for becomes a
// flow, or is refused.
package forward

import (
	"bufio"
	"context"
	"crypto/subtle"
	"errors"
	"io"
	"math"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/socks"
)

// User is the name that goes with every password.
const User = "cutout"

// handshakeLimit is how long a client may take to say what it wants.
const handshakeLimit = 30 * time.Second

// maxHandshake is what common servers accept in a request head.
const maxHandshake = 8 << 10

// maxConns bounds connections: as many as a sandbox may have flows. The next
// waits to be accepted.
const maxConns = 2048

// A Target is where a client wants to go: a name or an address.
type Target struct {
	Name hostname.Name // "" = an address was asked for
	Addr netip.Addr
	Port uint16
}

// A Server serves one boundary's clients.
type Server struct {
	Password string
	// Serve is told each connection that a client asks for, and returns when
	// it has ended. It calls accept at most once, or else the client is
	// refused.
	Serve func(ctx context.Context, src netip.AddrPort, t Target, accept func() (net.Conn, error))
	// Full is told, as often as it is so, that as many clients as there may be
	// are connected: the next waits. It must be quick. Nil: nobody.
	Full func()

	conns sync.WaitGroup
}

// Run accepts clients on l, which it closes, until ctx ends.
func (s *Server) Run(ctx context.Context, l net.Listener) {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	defer s.conns.Wait()
	free := make(chan struct{}, maxConns)
	for {
		select {
		case free <- struct{}{}:
		default:
			if s.Full != nil {
				s.Full()
			}
			free <- struct{}{}
		}
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			<-free
			time.Sleep(10 * time.Millisecond) // out of descriptors
			continue
		}
		s.conns.Go(func() {
			defer func() { <-free }()
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			s.serve(ctx, c.(*net.TCPConn))
		})
	}
}

// A client speaks one of the protocols.
type client interface {
	// ask returns where the client wants to go, once it has shown the
	// credential.
	ask(password string) (Target, error)
	accepted() error
	refused()
}

func (s *Server) serve(ctx context.Context, c *net.TCPConn) {
	c.SetDeadline(time.Now().Add(handshakeLimit))
	head := &io.LimitedReader{R: c, N: maxHandshake}
	r := bufio.NewReaderSize(head, 4096)
	first, err := r.Peek(1)
	if err != nil {
		return
	}
	var cl client = &connectClient{r: r, w: c}
	if first[0] == socks.Version {
		cl = &socksClient{r: r, w: c}
	}
	t, err := cl.ask(s.Password)
	if err != nil {
		return
	}
	answered := false
	s.Serve(ctx, c.RemoteAddr().(*net.TCPAddr).AddrPort(), t, func() (net.Conn, error) {
		answered = true
		if err := cl.accepted(); err != nil {
			return nil, err
		}
		c.SetDeadline(time.Time{})
		head.N = math.MaxInt64
		return &tunnel{TCPConn: c, r: r}, nil
	})
	if !answered {
		cl.refused()
	}
}

// authorized compares credentials in a time that tells nothing of them.
func authorized(user, password, want string) bool {
	return subtle.ConstantTimeCompare([]byte(user+":"+password), []byte(User+":"+want)) == 1
}

var errUnauthorized = errors.New("no credential, or a wrong one")

// splitTarget reads HOST:PORT.
func splitTarget(s string) (Target, error) {
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return Target{}, err
	}
	port, err := hostname.ParsePort(text)
	if err != nil {
		return Target{}, err
	}
	return target(host, port)
}

// target reads a host as a client writes it.
func target(host string, port uint16) (Target, error) {
	if a, err := netip.ParseAddr(host); err == nil && a.Zone() == "" {
		return Target{Addr: a.Unmap(), Port: port}, nil
	}
	name, err := hostname.Parse(host)
	return Target{Name: name, Port: port}, err
}

// A tunnel is a client's connection after the handshake, which may have read
// more than that.
type tunnel struct {
	*net.TCPConn
	r *bufio.Reader
}

func (t *tunnel) Read(b []byte) (int, error) { return t.r.Read(b) }

// WriteTo hides that of TCPConn, which would lose what was read already.
func (t *tunnel) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{t})
}
