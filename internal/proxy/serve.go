package proxy

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/reframe"
	"github.com/cutoutdev/cutout/internal/secret"
)

const (
	// headLimit is twice what common servers accept in a request head
	// (nginx 32 KB, Apache 8 KB a line): the upstream should be the one that
	// refuses.
	headLimit = 64 << 10
	// headWait is how long a request head may take, against slow ones that
	// hold a connection each.
	headWait = 30 * time.Second
	// idleWait is longer than any common upstream keeps a connection (nginx
	// 75 s, cloud load balancers up to 350 s): the upstream should be the one
	// that closes, and the guest sees it.
	idleWait = 6 * time.Minute
	// streams that a guest's HTTP/2 connection may have at once: the least
	// that RFC 9113 §6.5.2 recommends.
	streams = 100
	// answerHead is the longest response head, as in Go and Chromium (256 KB).
	answerHead = 256 << 10
)

// windows are what an HTTP/2 connection may make us hold in each direction
// while the other side does not read, by how many flows there are when it
// begins. The first are enough for 100 Mbit/s at 80 ms per stream, the last
// are the least that RFC 9113 §6.9.2 knows. All flows together come to
// 8×4 MiB + 56×512 KiB + 1984×64 KiB = 184 MiB.
var windows = [...]struct {
	flows              int64
	stream, connection int
}{
	{8, 1 << 20, 4 << 20},
	{64, 256 << 10, 512 << 10},
	{maxFlows, 64 << 10, 64 << 10},
}

// window returns the index of the windows of a connection that begins now.
func (p *Proxy) window() int {
	n := p.flows.Load()
	for i, w := range windows {
		if n <= w.flows {
			return i
		}
	}
	return len(windows) - 1
}

// A session serves the requests of one guest connection, over one upstream
// connection. It is the handler of that connection's server.
type session struct {
	*flow
	facts       policy.Facts       // all but the request's authority
	told        policy.Reason      // why nothing is forwarded; None: it is
	toldMore    string             // more than the reason says
	scrubAlways bool               // the connection may be with a secret's host, whatever the request says
	seal        *secret.Seal       // nil: nothing is ever substituted
	frames      *reframe.Conn      // the guest's HTTP/1; nil for HTTP/2
	ended       chan struct{}      // closed when the guest's connection has
	answered    atomic.Bool        // some request got a response
	first       hostname.Authority // of a plain connection's first request
	win         int                // index of its windows, for HTTP/2
	touched     atomic.Bool        // a value was written to the upstream or met in an answer

	mu       sync.Mutex
	raw      net.Conn         // to the upstream, not yet used
	up       *http.ClientConn // nil until the first request that is forwarded
	upErr    error
	draining bool
}

// upstream returns the connection's upstream, made when first needed.
func (s *session) upstream() (*http.ClientConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up != nil || s.upErr != nil {
		return s.up, s.upErr
	}
	if s.raw == nil {
		if s.raw, s.upErr = s.dial(); s.upErr != nil {
			return nil, s.upErr
		}
	}
	conn := s.raw
	if sendsPlain(s.currentRules().set, s.first.Host) {
		s.seal = secret.NewSeal(s.raw, false, s.cfg.Store)
		conn = s.seal
	}
	s.up, s.upErr = s.client.h1.conn(s.ctx, "http", s.dst.String(), conn)
	return s.up, s.upErr
}

// gone reports whether the upstream's connection has ended: the guest's then
// ends too, and its client knows what to do with requests under way.
func (s *session) gone() bool {
	s.mu.Lock()
	up := s.up
	s.mu.Unlock()
	return up != nil && up.Err() != nil
}

// close ends the upstream connection.
func (s *session) close() {
	s.mu.Lock()
	up, raw := s.up, s.raw
	s.draining = true
	s.mu.Unlock()
	if up != nil {
		up.Close() // calls the state hook, which locks
	}
	if raw != nil {
		raw.Close()
	}
	if s.touched.Load() {
		s.tidy.due.Store(true) // its buffers are free now
		s.tidy.rest()
	}
}

// touch notes that memory of the connection may hold a value.
func (s *session) touch() {
	s.touched.Store(true)
	s.tidy.due.Store(true)
}

// over ends a request.
func (s *session) over() {
	if s.requests.Add(-1) == 0 {
		s.tidy.rest()
	}
}

// serve runs an HTTP server on guest until the connection ends. It is always
// told that the connection is plain: TLS has ended here, and net/http would
// hide its frames in it.
func (s *session) serve(guest net.Conn) {
	defer s.close()
	s.ended = make(chan struct{})
	l := &listener{conn: guest, closed: make(chan struct{})}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(s.frames != nil)
	protocols.SetUnencryptedHTTP2(s.frames == nil)
	var late sync.Once
	var srv *http.Server
	srv = &http.Server{
		Handler:           s,
		Protocols:         protocols,
		ReadHeaderTimeout: headWait,
		IdleTimeout:       idleWait,
		MaxHeaderBytes:    headLimit,
		ErrorLog:          silent,
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateActive:
				// Before the guest's preface there was nobody to tell.
				if s.frames == nil && s.gone() {
					late.Do(func() { go srv.Shutdown(s.ctx) })
				}
			case http.StateClosed:
				close(s.ended)
				l.Close()
			case http.StateHijacked: // ends with its tunnel
				l.Close()
			}
		},
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          streams,
			MaxReceiveBufferPerStream:     windows[s.win].stream,
			MaxReceiveBufferPerConnection: windows[s.win].connection,
			SendPingTimeout:               0,
		},
	}
	s.mirrorClose(srv)
	srv.Serve(l)
	if l.conn == nil {
		<-s.ended // Serve returns before that on a shutdown
	}
}

// mirrorClose lets the guest's connection end when the upstream's has.
func (s *session) mirrorClose(srv *http.Server) {
	s.mu.Lock()
	up := s.up
	s.mu.Unlock()
	if up == nil {
		return
	}
	up.SetStateHook(func(c *http.ClientConn) {
		if c.Err() == nil {
			return
		}
		s.mu.Lock()
		first := !s.draining
		s.draining = true
		s.mu.Unlock()
		if first {
			go srv.Shutdown(s.ctx) // GOAWAY, or close between two requests
		}
	})
}

var silent = log.New(io.Discard, "", 0)

// A listener accepts one connection.
type listener struct {
	conn   net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return &net.TCPAddr{} }

// transports turn a connection into an HTTP client. They pool nothing.
type transports struct {
	h1 transport
	h2 [len(windows)]transport
}

type transport struct{ *http.Transport }

type connKey struct{}

func newTransports() transports {
	// The connections that are handed out are not *tls.Conn but seals over
	// them: net/http then knows nothing of TLS and speaks the one protocol
	// that is enabled.
	make := func(set func(*http.Protocols, bool), win int) transport {
		protocols := new(http.Protocols)
		set(protocols, true)
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			return ctx.Value(connKey{}).(net.Conn), nil
		}
		return transport{&http.Transport{
			Protocols:              protocols,
			DialContext:            dial,
			DialTLSContext:         dial,
			DisableCompression:     true,
			MaxResponseHeaderBytes: answerHead,
			ExpectContinueTimeout:  time.Second, // as curl waits
			HTTP2: &http.HTTP2Config{
				StrictMaxConcurrentRequests:   true,
				MaxReceiveBufferPerStream:     windows[win].stream,
				MaxReceiveBufferPerConnection: windows[win].connection,
			},
		}}
	}
	t := transports{h1: make((*http.Protocols).SetHTTP1, 0)}
	for i := range t.h2 {
		t.h2[i] = make((*http.Protocols).SetUnencryptedHTTP2, i)
	}
	return t
}

// conn speaks HTTP over c.
func (t transport) conn(ctx context.Context, scheme, addr string, c net.Conn) (*http.ClientConn, error) {
	return t.NewClientConn(context.WithValue(ctx, connKey{}, c), scheme, addr)
}

func hostPort(name hostname.Name, port uint16) string {
	if port == 443 {
		return string(name)
	}
	return string(name) + ":" + strconv.Itoa(int(port))
}

// serveHTTP2 is serve for HTTP/2. With which cipher the guest speaks it in
// TLS 1.2 is not looked at, as RFC 9113 §9.2.2 permits: it does so here alone.
func (s *session) serveHTTP2(guest net.Conn) {
	s.serve(&h2Guest{Conn: guest, report: s.h2Refused})
}

// serveHTTP1 is serve for HTTP/1, whose framing is not left to net/http.
func (s *session) serveHTTP1(guest net.Conn) {
	scheme := "http"
	if s.facts.TLS {
		scheme = "https"
	}
	s.frames = reframe.NewConn(guest, reframe.Config{Scheme: scheme, HeadTimeout: headWait, OnReject: s.rejected})
	s.serve(s.frames)
}

// rejected records a request that the re-framer refused.
func (s *session) rejected(r reframe.Reject) {
	if r.InBody {
		return // its handler meets the error
	}
	s.audit(audit.Event{
		Event: audit.Refused, Reason: r.Reason(), Detail: string(r.Fault),
		Host: string(s.facts.ServerName), Dst: s.dst.String(), Method: r.Method, Path: pathOf(r.Target),
	})
}
