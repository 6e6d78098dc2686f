package proxy

import (
	"errors"
	"net"
	"os"
	"time"

	"github.com/cutoutdev/cutout/internal/splice"
)

// A replay is a connection of which some bytes were read already.
type replay struct {
	net.Conn
	head []byte
	err  error // that came after head
}

func (c *replay) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		if c.head = c.head[n:]; len(c.head) == 0 {
			c.head = nil // a long connection must not keep it
		}
		return n, nil
	}
	if c.err != nil {
		return 0, c.err
	}
	return c.Conn.Read(p)
}

// CloseWrite ends the sending side.
func (c *replay) CloseWrite() error { splice.CloseWrite(c.Conn); return nil }

// NetConn is the connection itself.
func (c *replay) NetConn() net.Conn { return c.Conn }

// past is a deadline that has gone by: it interrupts a read.
var past = time.Unix(1, 0)

func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
