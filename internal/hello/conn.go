package hello

import (
	"errors"
	"net"
)

// A Conn replays the bytes that were peeked at, then reads on.
type Conn struct {
	net.Conn
	buf []byte // peeked at and not yet read
}

func (c *Conn) Read(p []byte) (int, error) {
	if len(c.buf) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.buf)
	if c.buf = c.buf[n:]; len(c.buf) == 0 {
		c.buf = nil // a long connection must not keep a large hello
	}
	return n, nil
}

// Peeked returns the bytes that will be replayed. They must not be changed
// and are valid until the next Read.
func (c *Conn) Peeked() []byte { return c.buf }

// CloseWrite ends the sending side, if the connection has one.
func (c *Conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// NetConn is the connection that was peeked at.
func (c *Conn) NetConn() net.Conn { return c.Conn }
