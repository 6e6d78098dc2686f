package proxy

import (
	"encoding/binary"
	"net"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
)

// RFC 9113 §4.1, §6.4, §6.8.
const (
	h2Header = 9
	h2Reset  = 0x3 // RST_STREAM: the code is all of the payload
	h2GoAway = 0x7 // the code comes after four bytes
)

// h2Errors are the codes of RFC 9113 §7 with which net/http refuses what a
// guest sends before any handler sees it. The others say that it has ended
// what a handler refused, or what the guest itself gave up.
var h2Errors = map[uint32]struct {
	name   string
	reason policy.Reason
}{
	0x1: {"PROTOCOL_ERROR", policy.MalformedRequest},
	0x3: {"FLOW_CONTROL_ERROR", policy.MalformedRequest},
	0x6: {"FRAME_SIZE_ERROR", policy.MalformedRequest},
	0x7: {"REFUSED_STREAM", policy.LimitReached},
	0x9: {"COMPRESSION_ERROR", policy.MalformedRequest},
	0xb: {"ENHANCE_YOUR_CALM", policy.LimitReached},
}

// An h2Guest is the guest's side of an HTTP/2 connection. It follows the
// frames that net/http writes and reports the error codes in them, of which
// net/http tells nobody else. What it cannot write, since the guest does not
// read, is not reported.
type h2Guest struct {
	net.Conn
	report func(code uint32)

	frame [h2Header + 8]byte // header, and the payload's begin if that is needed
	n     int                // bytes of frame that are there
	skip  int                // bytes of the payload that pass unread
}

// Write is called by one goroutine at a time.
func (g *h2Guest) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		if g.skip > 0 {
			n := min(g.skip, len(rest))
			g.skip -= n
			rest = rest[n:]
			continue
		}
		n := copy(g.frame[g.n:g.needed()], rest)
		rest = rest[n:]
		if g.n += n; g.n == g.needed() {
			g.whole()
		}
	}
	return g.Conn.Write(p)
}

// needed is how many bytes of the frame must be known.
func (g *h2Guest) needed() int {
	if g.n < h2Header {
		return h2Header
	}
	switch g.frame[3] {
	case h2Reset:
		return h2Header + 4
	case h2GoAway:
		return h2Header + 8
	}
	return h2Header
}

// whole is called when that many are there.
func (g *h2Guest) whole() {
	if g.n > h2Header {
		g.report(binary.BigEndian.Uint32(g.frame[g.n-4:]))
	}
	length := int(g.frame[0])<<16 | int(g.frame[1])<<8 | int(g.frame[2])
	g.skip = length - (g.n - h2Header)
	g.n = 0
}

// h2Refused records what net/http refused with an error code. Among it are
// trailers that come when their request has been refused, which net/http takes
// for an error of the guest's.
func (s *session) h2Refused(code uint32) {
	e, ok := h2Errors[code]
	if !ok {
		return
	}
	s.audit(audit.Event{
		Event: audit.Refused, Reason: e.reason, Detail: "HTTP/2 " + e.name,
		Host: string(s.facts.ServerName), Dst: s.dst.String(),
	})
}
