package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/splice"
	"github.com/cutoutdev/cutout/internal/websocket"
)

const (
	// closeWait is how long the other side may take to answer a Close frame.
	closeWait = 30 * time.Second
	// farewell bounds the last words to a side that may not be reading, and
	// the reading of what it still says: closing with unread bytes would
	// reset the connection and take the Close frame with it.
	farewell = 2 * time.Second
)

// A socket relays the messages of a WebSocket. Each direction has a
// goroutine that reads a message as a stream, searches it and frames it anew;
// memory does not depend on what is said. Frames go on as they come, and
// control frames in their place among them. Nothing is answered here: pings
// and Close frames are for the two ends, unless one breaks the protocol or a
// message is refused.
type socket struct {
	*request
	guest, up           net.Conn
	toGuest, toUpstream *websocket.Writer
	moved               atomic.Bool
	told                []*secret.Secret // whose placeholder was carried; for upward alone
}

// An ending is why one direction is over.
type ending struct {
	err    error
	reason policy.Reason // of an error that a peer has made
}

// converse relays messages until the WebSocket is closed.
func (q *request) converse(guest, up net.Conn) {
	s := &socket{
		request: q, guest: guest, up: up,
		toGuest:    websocket.NewWriter(guest, false),
		toUpstream: websocket.NewWriter(up, true),
	}
	if q.seal != nil {
		s.toUpstream.Mask = q.seal.Mask
	}
	defer splice.Watch(&s.moved, s.cut)()
	ends := make(chan ending, 4)
	direction := func(run func() error, src net.Conn, reason policy.Reason) func() {
		return func() {
			err := run()
			ends <- ending{err, reason}
			if err == websocket.ErrClosed {
				io.Copy(io.Discard, src) // nothing may follow
				ends <- ending{err: errGone}
			}
		}
	}
	var both sync.WaitGroup
	both.Go(direction(s.upward, guest, policy.MalformedRequest))
	both.Go(direction(s.downward, up, policy.UpstreamFailed))
	s.part(last(ends))
	s.cut()
	both.Wait()
}

var errGone = errors.New("one side has left")

// last returns what ends a WebSocket: what ends one direction, or, if that is
// a Close frame, what ends the other, which as a rule answers with one.
func last(ends chan ending) ending {
	e := <-ends
	if e.err != websocket.ErrClosed {
		return e
	}
	wait := time.NewTimer(closeWait)
	defer wait.Stop()
	for {
		select {
		case e := <-ends:
			if e.err != errGone {
				return e
			}
			wait.Reset(farewell)
		case <-wait.C:
			return e
		}
	}
}

// part tells both sides why the WebSocket ends, if they do not know.
func (s *socket) part(e ending) {
	limit := time.Now().Add(farewell)
	s.guest.SetWriteDeadline(limit) // frees a writer that waits, too
	s.up.SetWriteDeadline(limit)
	no, wrong := new(refusal), new(websocket.Error)
	switch {
	case errors.As(e.err, &no):
		s.toUpstream.Close(websocket.PolicyError, "") // the secret is none of its business
		s.toGuest.Close(websocket.PolicyError, no.Error())
	case errors.As(e.err, &wrong):
		no = &refusal{reason: e.reason, detail: wrong.Text}
		s.toUpstream.Close(wrong.Code, wrong.Text)
		s.toGuest.Close(wrong.Code, wrong.Text)
	default:
		return
	}
	// Both had their frame before either could answer it to the other.
	s.toGuest.Flush()
	s.toUpstream.Flush()
	event := s.event(audit.Aborted)
	event.Reason, event.Surface, event.Detail = no.reason, "websocket", no.detail
	if no.secret != nil {
		event.Secret = no.secret.Name
	}
	s.audit(event)
	if no.terminate {
		s.cfg.Terminate(no.reason)
	}
	s.up.Close()
	splice.CloseWrite(s.guest)
	s.guest.SetReadDeadline(limit)
	io.Copy(io.Discard, s.guest)
}

// upward relays what the guest says, until it ends.
func (s *socket) upward() error {
	in := websocket.NewReader(s.guest, true)
	in.Idle = func() error { s.moved.Store(true); return s.toUpstream.Flush() }
	in.Control = func(op websocket.Opcode, p []byte) error {
		if err := s.searchControl(p); err != nil {
			return err
		}
		return s.toUpstream.Control(op, p)
	}
	for {
		op, err := in.Next()
		if err == nil {
			err = s.sendMessage(in, op)
		}
		if err != nil {
			s.toUpstream.Flush()
			return err
		}
	}
}

// downward relays what the upstream says, until it ends.
func (s *socket) downward() error {
	in := websocket.NewReader(s.up, false)
	in.Idle = func() error { s.moved.Store(true); return s.toGuest.Flush() }
	in.Control = func(op websocket.Opcode, p []byte) error {
		if err := s.scrubControl(p); err != nil {
			return err
		}
		return s.toGuest.Control(op, p)
	}
	for {
		op, err := in.Next()
		if err == nil {
			err = s.receiveMessage(in, op)
		}
		if err != nil {
			s.toGuest.Flush()
			return err
		}
	}
}
