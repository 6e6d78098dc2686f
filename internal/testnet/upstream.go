package testnet

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// UpstreamConfig says how an [Upstream] listens.
type UpstreamConfig struct {
	Addr netip.AddrPort // zero = a free port of 127.0.0.1

	// Cert makes the upstream speak TLS; nil means plain HTTP/1.
	Cert *tls.Certificate
	// TLS replaces the TLS configuration; Cert and ALPN are still set in a copy.
	TLS *tls.Config
	// HTTP1 and HTTP2 choose what ALPN offers; neither means both.
	HTTP1, HTTP2 bool

	// Handler answers; nil means [Paths]. Requests are recorded either way.
	Handler http.Handler
}

// An Upstream is an HTTP server that records every request.
type Upstream struct {
	recorder
	listener net.Listener
	server   *http.Server
	conns    *handover
	tls      *tls.Config
	wg       sync.WaitGroup
}

// StartUpstream starts an upstream. Close it after use.
func StartUpstream(cfg UpstreamConfig) (*Upstream, error) {
	l, err := listen(cfg.Addr)
	if err != nil {
		return nil, err
	}
	h := cfg.Handler
	if h == nil {
		h = Paths()
	}
	u := &Upstream{listener: l, conns: newHandover(l.Addr()), tls: tlsConfig(cfg)}
	u.server = &http.Server{
		Handler:        u.recorder.record(h),
		ConnContext:    func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ErrorLog:       log.New(io.Discard, "", 0),
		MaxHeaderBytes: 4 << 20, // a test may send more than a server would like
	}
	u.wg.Go(u.accept)
	u.wg.Go(func() { u.server.Serve(u.conns) })
	return u, nil
}

func tlsConfig(cfg UpstreamConfig) *tls.Config {
	if cfg.Cert == nil {
		return nil
	}
	t := new(tls.Config)
	if cfg.TLS != nil {
		t = cfg.TLS.Clone()
	}
	t.Certificates = []tls.Certificate{*cfg.Cert}
	t.NextProtos = nil
	if cfg.HTTP2 || !cfg.HTTP1 {
		t.NextProtos = append(t.NextProtos, "h2")
	}
	if cfg.HTTP1 || !cfg.HTTP2 {
		t.NextProtos = append(t.NextProtos, "http/1.1")
	}
	return t
}

// Addr returns the address that the upstream listens on.
func (u *Upstream) Addr() netip.AddrPort { return addrPort(u.listener.Addr()) }

// Close ends the listener and every connection.
func (u *Upstream) Close() error {
	u.listener.Close()
	u.conns.Close()
	err := u.server.Close()
	u.wg.Wait()
	return err
}

func (u *Upstream) accept() {
	for {
		c, err := u.listener.Accept()
		if err != nil {
			return
		}
		u.add(func(n *Counts) { n.Accepted++ })
		go u.handshake(c)
	}
}

// handshake completes TLS before net/http sees the connection, so that a
// plaintext HTTP/1 connection can be read along with on its way.
func (u *Upstream) handshake(c net.Conn) {
	if u.tls == nil {
		u.conns.push(&teeConn{Conn: c})
		return
	}
	t := tls.Server(c, u.tls)
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if err := t.Handshake(); err != nil {
		u.add(func(n *Counts) { n.Failed++ })
		c.Close()
		return
	}
	c.SetDeadline(time.Time{})
	u.add(func(n *Counts) { n.Handshakes++ })
	if t.ConnectionState().NegotiatedProtocol == "h2" {
		u.conns.push(t)
		return
	}
	state := t.ConnectionState()
	u.conns.push(&teeConn{Conn: t, tls: &state})
}

// A handover is a listener that is fed connections.
type handover struct {
	addr net.Addr
	c    chan net.Conn
	done chan struct{}
	once sync.Once
}

func newHandover(a net.Addr) *handover {
	return &handover{addr: a, c: make(chan net.Conn), done: make(chan struct{})}
}

func (h *handover) push(c net.Conn) {
	select {
	case h.c <- c:
	case <-h.done:
		c.Close()
	}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.c:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handover) Addr() net.Addr { return h.addr }
func (h *handover) Close() error   { h.once.Do(func() { close(h.done) }); return nil }
