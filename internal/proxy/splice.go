package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cutoutdev/cutout/internal/hello"
)

// spliceIdle ends a relay in which nothing moved. RFC 5382 REQ-5 asks
// translators to keep established connections for at least 2 h 4 min.
const spliceIdle = 124 * time.Minute

// relayBuffer is one segment of the guest's link (MTU 65520) at most, twice
// per connection: memory does not depend on what is relayed.
const relayBuffer = 64 << 10

var relayBuffers = sync.Pool{New: func() any { return new([relayBuffer]byte) }}

// splice relays bytes both ways, unread, until both directions have ended.
// An end of one direction is passed on as one and leaves the other open; a
// reset of either side resets the other.
func splice(a, b net.Conn) {
	var moved atomic.Bool
	defer watch(&moved, func() { reset(a); reset(b) })()
	var both sync.WaitGroup
	both.Go(func() { relay(a, b, &moved) })
	relay(b, a, &moved)
	both.Wait()
	a.Close()
	b.Close()
}

// watch calls idle if nothing has moved for long, until stop is called.
func watch(moved *atomic.Bool, idle func()) (stop func()) {
	stopped := make(chan struct{})
	go func() {
		tick := time.NewTicker(spliceIdle / 2)
		defer tick.Stop()
		for {
			select {
			case <-stopped:
				return
			case <-tick.C:
				if !moved.Swap(false) {
					idle()
					return
				}
			}
		}
	}()
	return func() { close(stopped) }
}

// relay copies src to dst to the end of src.
func relay(dst, src net.Conn, moved *atomic.Bool) {
	buf := relayBuffers.Get().(*[relayBuffer]byte)
	defer relayBuffers.Put(buf)
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			moved.Store(true)
			if _, werr := dst.Write(buf[:n]); werr != nil {
				err = werr
			}
		}
		switch {
		case err == nil:
		case err == io.EOF:
			closeWrite(dst)
			return
		default:
			reset(dst)
			reset(src)
			return
		}
	}
}

// closeWrite ends one direction, or both if c cannot end one alone.
func closeWrite(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		h.CloseWrite()
		return
	}
	c.Close()
}

// reset closes c with a RST if it can, so that the other side does not take
// what it has for the whole.
func reset(c net.Conn) {
	switch x := c.(type) {
	case *hello.Conn:
		reset(x.Conn)
	case interface{ Reset() }:
		x.Reset()
	case interface{ SetLinger(sec int) error }:
		x.SetLinger(0)
	}
	c.Close()
}

// A replay is a connection of which some bytes were read already.
type replay struct {
	net.Conn
	head []byte
	err  error // that came after head
}

func (c *replay) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	if c.err != nil {
		return 0, c.err
	}
	return c.Conn.Read(p)
}

// CloseWrite ends the sending side.
func (c *replay) CloseWrite() error { closeWrite(c.Conn); return nil }

// Reset closes with a RST.
func (c *replay) Reset() { reset(c.Conn) }

// past is a deadline that has gone by: it interrupts a read.
var past = time.Unix(1, 0)

func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
