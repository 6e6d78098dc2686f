// Package splice joins two connections: what comes from one goes to the
// other, unread.
//
// It promises that either side sees what the other did: an end of one
// direction leaves the other open, a reset is a reset, and who does not read
// holds up who writes, with a fixed amount of memory between them.
package splice

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Idle ends a splice in which nothing moved. RFC 5382 REQ-5 asks translators
// to keep established connections for at least 2 h 4 min.
const Idle = 124 * time.Minute

// Join relays both ways until both directions have ended, and closes both.
func Join(a, b net.Conn) {
	var moved atomic.Bool
	defer Watch(&moved, func() { Reset(a); Reset(b) })()
	var both sync.WaitGroup
	both.Go(func() { relay(a, b, &moved) })
	relay(b, a, &moved)
	both.Wait()
	a.Close()
	b.Close()
}

// Watch calls idle if nothing has moved for long, until stop is called. It
// needs no goroutine: a sandbox may have two thousand connections.
func Watch(moved *atomic.Bool, idle func()) (stop func()) {
	var mu sync.Mutex
	var timer *time.Timer // nil once stopped
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(Idle/2, func() {
		mu.Lock()
		running := timer != nil
		still := running && !moved.Swap(false)
		if running && !still {
			timer.Reset(Idle / 2)
		}
		mu.Unlock()
		if still {
			idle()
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		timer.Stop()
		timer = nil
	}
}

// relay copies src to dst to the end of src.
func relay(dst, src net.Conn, moved *atomic.Bool) {
	var buf buffer
	defer buf.shrink()
	for {
		n, err := src.Read(buf.bytes())
		if n > 0 {
			moved.Store(true)
			if _, werr := dst.Write(buf.bytes()[:n]); werr != nil {
				err = werr
			}
		}
		buf.fit(n)
		switch {
		case err == nil:
		case err == io.EOF:
			CloseWrite(dst)
			return
		default:
			Reset(dst)
			Reset(src)
			return
		}
	}
}

// CloseWrite ends one direction, or both if c cannot end one alone.
func CloseWrite(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		h.CloseWrite()
		return
	}
	c.Close()
}

// Reset closes c with a RST if it can, so that the other side does not take
// what it has for the whole. A connection within another is reset in its
// place.
func Reset(c net.Conn) {
	switch x := c.(type) {
	case interface{ NetConn() net.Conn }:
		Reset(x.NetConn())
	case interface{ Reset() }:
		x.Reset()
	case interface{ SetLinger(sec int) error }:
		x.SetLinger(0)
	}
	c.Close()
}
