package testnet

import (
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
)

// RawConfig says how a [Raw] upstream behaves.
type RawConfig struct {
	Addr   netip.AddrPort   // zero = a free port of 127.0.0.1
	Cert   *tls.Certificate // nil = plain TCP
	Banner string           // sent before anything is read: the server speaks first
	Reply  string           // sent after the first bytes were read
	Echo   bool             // send back whatever is read
	// Serve, if set, replaces all of the above. What it reads is recorded.
	Serve func(net.Conn)
}

// A Raw upstream records the exact bytes of each connection.
type Raw struct {
	cfg      RawConfig
	listener net.Listener

	mu    sync.Mutex
	conns []*rawConn
	wg    sync.WaitGroup
}

// StartRaw starts a raw upstream. Close it after use.
func StartRaw(cfg RawConfig) (*Raw, error) {
	l, err := listen(cfg.Addr)
	if err != nil {
		return nil, err
	}
	if cfg.Cert != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*cfg.Cert}})
	}
	r := &Raw{cfg: cfg, listener: l}
	r.wg.Go(r.accept)
	return r, nil
}

// Addr returns the address that the upstream listens on.
func (r *Raw) Addr() netip.AddrPort { return addrPort(r.listener.Addr()) }

// Received returns the bytes read so far on each connection, in the order in
// which they were accepted.
func (r *Raw) Received() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, c := range r.conns {
		c.mu.Lock()
		out = append(out, string(c.got))
		c.mu.Unlock()
	}
	return out
}

// Close ends the listener and every connection.
func (r *Raw) Close() error {
	err := r.listener.Close()
	r.mu.Lock()
	conns := slices.Clone(r.conns)
	r.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	r.wg.Wait()
	return err
}

func (r *Raw) accept() {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return
		}
		rc := &rawConn{Conn: c}
		r.mu.Lock()
		r.conns = append(r.conns, rc)
		r.mu.Unlock()
		go r.serve(rc)
	}
}

func (r *Raw) serve(c *rawConn) {
	defer c.Close()
	if r.cfg.Serve != nil {
		r.cfg.Serve(c)
		return
	}
	if _, err := io.WriteString(c, r.cfg.Banner); err != nil {
		return
	}
	buf := make([]byte, 32<<10)
	for first := true; ; first = false {
		n, err := c.Read(buf)
		if n > 0 && first {
			io.WriteString(c, r.cfg.Reply)
		}
		if r.cfg.Echo {
			c.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

type rawConn struct {
	net.Conn
	mu  sync.Mutex
	got []byte
}

func (c *rawConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	c.got = append(c.got, p[:n]...)
	c.mu.Unlock()
	return n, err
}
