package reframe

import (
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"time"
)

type state uint8

const (
	stateHead    state = iota // a request, or the rest of its head, is to come
	stateFixed                // left bytes of a body
	stateSize                 // the size line of a chunk
	stateData                 // left bytes of a chunk
	stateEnd                  // the CR LF behind a chunk
	stateTrailer              // the rest of the trailer section
	stateFailed               // nothing more
)

// errWait says that a step needs more from the guest than has come.
var errWait = errors.New("wait for the guest")

// Read hands on the canonical stream, bytes of one message in each call. As
// for any connection, two calls must not run at a time.
func (c *Conn) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		k, err := c.step(p[n:], n == 0)
		n += k
		if err == errWait {
			break
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// step makes one step of progress, writing to p what is to be handed on. It
// waits for the guest only if block is set, and gives errWait otherwise.
func (c *Conn) step(p []byte, block bool) (int, error) {
	if len(c.pend[0]) > 0 {
		return c.drain(p), nil
	}
	var f Fault
	var err error
	switch c.state {
	case stateFixed, stateData:
		return c.body(p, block)
	case stateHead:
		if !block { // the next message is for another call
			return 0, errWait
		}
		var n int
		if n, f, err = c.nextHead(p); n > 0 {
			return n, err
		}
	case stateSize:
		f, err = c.chunkSize(block)
	case stateEnd:
		f, err = c.chunkEnd(block)
	case stateTrailer:
		f, err = c.trailer(block)
	case stateFailed:
		if !block {
			return 0, errWait
		}
		return 0, c.end()
	}
	if f != "" {
		c.fail(f)
		return 0, nil
	}
	return 0, err
}

// drain hands on what is pending.
func (c *Conn) drain(p []byte) int {
	n := copy(p, c.pend[0])
	if c.pend[0] = c.pend[0][n:]; len(c.pend[0]) == 0 {
		if c.pend[0], c.pend[1] = c.pend[1], nil; len(c.pend[0]) == 0 {
			c.in.skip(c.held)
			c.held = 0
		}
	}
	return n
}

// emit puts text and then the unread bytes from a to b in front of everything
// else; the bytes up to b are then read.
func (c *Conn) emit(text []byte, a, b int) {
	c.pend[0], c.pend[1], c.held = text, c.in.bytes()[a:b], b
}

func (c *Conn) fill(block bool) error {
	if !block {
		return errWait
	}
	return c.in.fill(c.Conn)
}

// body hands on bytes of a body, straight from the guest where it can.
func (c *Conn) body(p []byte, block bool) (n int, err error) {
	p = p[:min(uint64(len(p)), c.left)]
	switch {
	case c.in.len() > 0:
		n = copy(p, c.in.bytes())
		c.in.skip(n)
	case !block:
		return 0, errWait
	default:
		n, err = c.Conn.Read(p)
	}
	if c.left -= uint64(n); c.left == 0 {
		if c.state == stateData {
			c.state = stateEnd
		} else {
			c.state = stateHead
		}
	}
	return n, err
}

// chunkSize reads 1–16 hexadecimal digits, RFC 9112 §7.1. The extensions that
// the RFC allows nobody uses, and parsers disagree about them.
func (c *Conn) chunkSize(block bool) (Fault, error) {
	line, next, f := c.in.line(0)
	switch {
	case f != "" || next == 0 && c.in.len() > 17:
		return BadChunk, nil
	case next == 0:
		return "", c.fill(block)
	}
	size, err := strconv.ParseUint(string(line), 16, 63) // no sign, no prefix, no underscore in base 16
	if err != nil || len(line) > 16 {
		return BadChunk, nil
	}
	c.in.skip(next)
	if c.left = size; size == 0 {
		c.state, c.at = stateTrailer, 0
		return "", nil
	}
	c.state = stateData
	c.text = append(strconv.AppendUint(c.text[:0], size, 16), crlf...)
	c.emit(c.text, 0, 0)
	return "", nil
}

func (c *Conn) chunkEnd(block bool) (Fault, error) {
	b := c.in.bytes()
	switch {
	case len(b) >= 1 && b[0] != '\r', len(b) >= 2 && b[1] != '\n':
		return BadChunk, nil
	case len(b) < 2:
		return "", c.fill(block)
	}
	c.state = stateSize
	c.emit(crlf, 2, 2)
	return "", nil
}

var (
	crlf      = []byte("\r\n")
	lastChunk = []byte("0\r\n")
)

// trailer reads the trailer section. The last chunk is held until all of it
// has been checked: without it the message cannot seem complete.
func (c *Conn) trailer(block bool) (Fault, error) {
	for {
		line, next, f := c.in.line(c.at)
		switch {
		case f != "":
			return f, nil
		case next > maxTrailer || next == 0 && c.in.len() > maxTrailer:
			return TrailersTooLarge, nil
		case next == 0:
			return "", c.fill(block)
		case len(line) == 0:
			c.emit(lastChunk, 0, next)
			c.state, c.at = stateHead, 0
			return "", nil
		}
		if f := trailerLine(line); f != "" {
			return f, nil
		}
		c.at = next
	}
}

// fail ends the stream with a fault in what was being read.
func (c *Conn) fail(f Fault) {
	h := &c.parse.head
	r := Reject{Fault: f, InBody: c.state != stateHead, Method: h.Method, Target: h.Target, Host: h.Host}
	if r.InBody {
		c.failed = &Error{r}
	}
	c.state, c.in = stateFailed, input{}
	c.mu.Lock()
	c.reject = &r
	c.mu.Unlock()
	if c.cfg.OnReject != nil {
		c.cfg.OnReject(r)
	}
}

// end is the result of reading behind a fault. For one in a head it is a
// clean end, but not while an earlier request is being served: net/http reads
// ahead, and takes an end for the guest's leaving, which cancels the request.
func (c *Conn) end() error {
	if c.failed != nil {
		return c.failed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy() {
		return c.interrupted()
	}
	c.answers = true
	return io.EOF
}

// busy reports whether a request that was handed on is not over. c.mu is
// held.
func (c *Conn) busy() bool {
	return c.emitted > c.claimed || c.ctx != nil && c.ctx.Err() == nil
}

// interrupted waits until the connection is closed or the read deadline has
// passed: net/http sets one in the past to stop its reading ahead. c.mu is
// held.
func (c *Conn) interrupted() error {
	for {
		switch {
		case c.closed:
			return net.ErrClosed
		case c.deadline.IsZero():
			c.cond.Wait()
			continue
		}
		left := time.Until(c.deadline)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		wake := time.AfterFunc(left, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.cond.Broadcast()
		})
		c.cond.Wait()
		wake.Stop()
	}
}
