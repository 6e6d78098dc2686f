package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/coding"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/rewrite"
)

const (
	grpcPrefix = 5 // a flag, a length of four bytes
	// grpcMessage is the longest compressed message that is decoded, and what
	// it may become: what gRPC clients take by default.
	grpcMessage = 4 << 20
)

// sendGRPC passes a gRPC answer on. Its lengths stay as they are but for
// compressed messages, which become plain ones.
func (r *response) sendGRPC(w http.ResponseWriter, kind grpcKind) {
	if kind == grpcWebText {
		// Values show in one of their Base64 forms.
		r.fixed = true
		r.send(w, r.clean())
		return
	}
	m := &grpcMessages{q: r.request, src: r.resp.Body, over: r.scrub.Overwriter(r.scrubbed)}
	defer m.release()
	if c := strings.ToLower(r.resp.Header.Get("Grpc-Encoding")); c != "" && c != "identity" {
		m.coding = c
		r.resp.ContentLength = -1
		w.Header().Del("Content-Length")
	}
	r.send(w, m)
}

// breakOff ends an answer whose head is out already. A gRPC client is told
// why: trailers with a failure are no normal end.
func (q *request) breakOff(w http.ResponseWriter, err error) {
	no := new(refusal)
	if !errors.As(err, &no) || q.body.incomplete() {
		panic(http.ErrAbortHandler) // it is the request's body that was left incomplete
	}
	e := q.event(audit.Aborted)
	e.Reason, e.Detail = no.reason, no.detail
	q.audit(e)
	if q.in.ProtoMajor != 2 || grpcOf(q.in.Header) == noGRPC || strings.Contains(q.in.Header.Get("Content-Type"), "-web") {
		panic(http.ErrAbortHandler)
	}
	for name, values := range grpcStatus(no) {
		w.Header()[http.TrailerPrefix+name] = values
	}
}

// A grpcMessages reads the messages of an answer with their values
// overwritten. A message is passed on as it comes, but for a compressed one,
// which must be whole to be decoded. Its end releases what was held back, so
// that a conversation stays live.
//
// Who says that the body is gRPC may have been the guest, by way of a server
// that gives back what it gets, Content-Type too. So the borders of messages
// are for timing alone: values are found across them.
type grpcMessages struct {
	q      *request
	src    io.Reader
	over   *rewrite.Overwriter
	coding string // of messages with the flag; "" if none was announced

	head  [grpcPrefix]byte
	nhead int
	left  uint64 // bytes of the message to come
	whole []byte // a compressed message so far
	packs bool   // whole is being filled
	held  int64  // of the sandbox's bytes
	alien bool   // no gRPC after all

	buf []byte
	out []byte // is to be returned
	own []byte // backs out
	err error  // after out
}

func (m *grpcMessages) Read(p []byte) (int, error) {
	for {
		switch {
		case len(m.out) > 0:
			n := copy(p, m.out)
			m.out = m.out[n:]
			return n, nil
		case m.err != nil:
			return 0, m.err
		case len(p) == 0:
			return 0, nil
		}
		if m.buf == nil {
			m.buf = make([]byte, 16<<10) // a DATA frame
		}
		n, err := m.src.Read(m.buf)
		m.out = m.own[:0]
		fault := m.take(m.buf[:n])
		clear(m.buf[:n])
		if fault == nil && err == io.EOF {
			fault = m.end()
		}
		if m.err = err; fault != nil {
			m.err = fault
		}
		m.own = m.out
	}
}

// take puts what can be passed on after p into out.
func (m *grpcMessages) take(p []byte) error {
	for len(p) > 0 {
		if m.alien {
			return m.pass(p, false, false)
		}
		if m.nhead < grpcPrefix {
			n := copy(m.head[m.nhead:], p)
			m.nhead += n
			p = p[n:]
			if m.nhead == grpcPrefix {
				if err := m.begin(); err != nil {
					return err
				}
			}
			continue
		}
		n := min(uint64(len(p)), m.left)
		m.left -= n
		if err := m.payload(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// begin looks at the prefix of a message.
func (m *grpcMessages) begin() error {
	m.left = uint64(binary.BigEndian.Uint32(m.head[1:]))
	const compressed, trailers = 1, 0x80 // the latter in gRPC-Web
	switch flag := m.head[0]; {
	case flag&^(compressed|trailers) != 0:
		m.alien = true
	case flag&compressed != 0 && m.left > 0:
		return m.pack()
	}
	if m.left == 0 && !m.alien {
		m.nhead = 0
		return m.pass(m.head[:], true, false)
	}
	return m.pass(m.head[:], false, false)
}

// pack begins a compressed message, which is to be decoded.
func (m *grpcMessages) pack() error {
	if m.coding == "" || !coding.Known(m.coding) || m.left > grpcMessage {
		return m.unreadable(m.head[:], false)
	}
	n := int64(m.left) + grpcMessage
	if !m.q.held.Take(n) {
		return m.unreadable(m.head[:], false)
	}
	m.packs, m.held = true, n
	return nil
}

// unreadable withholds a message that cannot be searched, or passes text of
// it on if that is to be.
func (m *grpcMessages) unreadable(text []byte, end bool) error {
	if m.q.mode != ScrubLax {
		no := refused(policy.Unscannable)
		no.detail = "a compressed message"
		return no
	}
	return m.pass(text, end, false)
}

// payload takes bytes of the current message.
func (m *grpcMessages) payload(p []byte) error {
	end := m.left == 0
	if end {
		m.nhead = 0
	}
	if !m.packs {
		return m.pass(p, end, false)
	}
	if m.whole = append(m.whole, p...); !end {
		return nil
	}
	defer m.release()
	plain, err := m.decode()
	if err != nil {
		if err := m.unreadable(m.head[:], false); err != nil {
			return err
		}
		return m.unreadable(m.whole, true)
	}
	m.head[0] &^= 1
	binary.BigEndian.PutUint32(m.head[1:], uint32(len(plain)))
	if err := m.pass(m.head[:], len(plain) == 0, false); err != nil {
		return err
	}
	err = m.pass(plain, true, false)
	clear(plain)
	return err
}

func (m *grpcMessages) decode() ([]byte, error) {
	r, err := coding.NewReader(bytes.NewReader(m.whole), []string{m.coding}, coding.Limits{Max: grpcMessage, Budget: &m.q.held})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// release gives back what a compressed message has taken.
func (m *grpcMessages) release() {
	m.q.held.Give(m.held)
	clear(m.whole)
	m.whole, m.packs, m.held = nil, false, 0
}

// end is the end of the stream, which may lie within a message.
func (m *grpcMessages) end() error {
	var rest []byte
	switch {
	case m.packs:
		// The client could not have decoded it either.
	case m.nhead > 0 && m.nhead < grpcPrefix:
		rest = m.head[:m.nhead]
	}
	return m.pass(rest, true, true)
}

func (m *grpcMessages) pass(p []byte, end, final bool) (err error) {
	m.out, err = m.over.Append(m.out, p, end, final)
	return err
}
