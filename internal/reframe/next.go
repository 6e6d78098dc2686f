package reframe

import (
	"errors"
	"os"
	"strconv"
	"time"
)

// maxEarly bounds what is kept of the bytes that a guest sends behind a
// request for an upgrade before the server has agreed to it.
const maxEarly = 16 << 10

// nextHead reads up to the end of a head and puts it in front. After an
// upgrade it reads into p instead.
func (c *Conn) nextHead(p []byte) (int, Fault, error) {
	c.mu.Lock()
	raw, hold := c.raw, c.upgrade && c.busy()
	c.mu.Unlock()
	switch {
	case raw:
		n, err := c.readRaw(p)
		return n, "", err
	case hold:
		return 0, "", c.hold()
	}
	for {
		done, f := c.parseHead()
		if done || f != "" {
			c.since = time.Time{}
			return 0, f, nil
		}
		if f, err := c.more(); f != "" || err != nil {
			return 0, f, err
		}
	}
}

// parseHead checks the lines that have come, and reports whether that
// completes the head.
func (c *Conn) parseHead() (bool, Fault) {
	for {
		line, next, f := c.in.line(c.at)
		switch {
		case f != "":
			if c.at == 0 {
				c.parse.reset()
			}
			return false, f
		case next == 0:
			return false, ""
		case next > maxHead:
			return false, HeadTooLarge
		case c.at == 0:
			c.parse.reset()
			c.first = next
			f = c.parse.requestLine(line)
		case len(line) == 0:
			if f := c.parse.end(c.cfg.Scheme); f != "" {
				return false, f
			}
			c.hand(next)
			return true, ""
		default:
			f = c.parse.field(line)
		}
		if f != "" {
			return false, f
		}
		c.at = next
	}
}

// hand hands on the head that ends at offset end, its number in place of its
// target.
func (c *Conn) hand(end int) {
	h := &c.parse.head
	c.mu.Lock()
	c.emitted++
	h.Index = c.emitted
	c.heads[h.Index&1] = *h
	c.upgrade = h.Upgrade != ""
	c.mu.Unlock()

	c.text = append(append(c.text[:0], h.Method...), " /"...)
	c.text = append(strconv.AppendUint(c.text, h.Index, 10), " HTTP/1."...)
	c.text = append(append(c.text, '0'+byte(h.Minor)), crlf...)
	c.emit(c.text, c.first, end)
	c.at = 0
	switch {
	case h.Length < 0:
		c.state = stateSize
	case h.Length > 0:
		c.state, c.left = stateFixed, uint64(h.Length)
	}
}

// more reads more of a head. Between requests that may take as long as the
// server likes; within a head it must be over in time.
func (c *Conn) more() (Fault, error) {
	if c.in.len() == 0 {
		return "", c.in.fill(c.Conn)
	}
	if c.since.IsZero() {
		c.since = time.Now()
	}
	limit := c.since.Add(c.cfg.HeadTimeout)
	c.setLimit(limit)
	err := c.in.fill(c.Conn)
	own := c.setLimit(time.Time{})
	now := time.Now()
	if errors.Is(err, os.ErrDeadlineExceeded) && !now.Before(limit) && (own.IsZero() || now.Before(own)) {
		return HeadTooSlow, nil
	}
	return "", err
}

// setLimit makes reads end at limit, if the deadline that was set from
// outside, which it returns, is not earlier.
func (c *Conn) setLimit(limit time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = limit
	c.Conn.SetReadDeadline(earlier(c.deadline, limit))
	return c.deadline
}

// earlier returns the earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// hold waits behind a request for an upgrade until it is decided: what
// follows is the new protocol or another request. It reads, so as to notice
// a guest that leaves, and always gives an error: the guest's end, or the
// interruption when the request is over or the connection is hijacked.
func (c *Conn) hold() error {
	for c.in.len() < maxEarly {
		if err := c.in.fill(c.Conn); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.interrupted()
}

func (c *Conn) readRaw(p []byte) (int, error) {
	if c.in.len() == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.in.bytes())
	c.in.skip(n)
	return n, nil
}
