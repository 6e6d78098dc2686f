package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
)

// A Body is one request body into which markers are written. The seal does
// not search bodies: [Body.Reader] notes where in the body each marker
// stands, and there, and only in the request that carries [Body.Field], the
// value is written. A marker that turns up elsewhere, in another stream or at
// another place, is mere text. A marker may be split in any way, over chunks
// or DATA frames: each piece gets its piece of the value, so nothing is ever
// held back and neither framing nor flow control changes.
//
// Register may be called while the body is read, by one goroutine at a time.
type Body struct {
	seal *Seal
	name string // of the field by which the seal knows the request

	mu     sync.Mutex
	fresh  []place // registered, not yet seen by Reader; at is not set
	places []place // in order, not yet written
	sent   int64   // bytes of the body that were written
	closed bool
}

// A place is where a marker stands in a body.
type place struct {
	at     int64
	marker string
	off    int // of its block
}

func (p place) end() int64 { return p.at + int64(len(p.marker)) }

// Body returns a new body for one request on the connection.
func (s *Seal) Body() (*Body, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries == nil {
		return nil, net.ErrClosed
	}
	b := &Body{seal: s, name: string(randomText(bodyName))}
	if s.bodies == nil {
		s.bodies, s.open = make(map[string]*Body), make(map[*Body]bool)
	}
	s.bodies[b.name], s.open[b] = b, true
	return b, nil
}

// bodyName letters cannot be guessed by a guest that would like to claim
// another stream.
const bodyName = 22

// Field is a header field that the request must carry. The seal takes it
// out; the upstream never sees it.
func (b *Body) Field() (name, value string) { return b.seal.field, b.name }

// Register is [Seal.Register] for a marker in the body.
func (b *Body) Register(parts []Part, enc Encoding) (string, error) {
	off, n, err := b.seal.st.encode(parts, enc)
	if err != nil {
		return "", fmt.Errorf("register marker: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || n < keyLen {
		b.seal.st.release(off)
		return "", errors.New("register marker: body is closed or value too short")
	}
	for {
		marker := b.seal.prefix + string(randomText(n-prefixLen))
		// None may begin as another does, or it could be taken for it.
		if !slices.ContainsFunc(b.fresh, func(p place) bool { return p.marker[:keyLen] == marker[:keyLen] }) {
			b.fresh = append(b.fresh, place{marker: marker, off: off})
			return marker, nil
		}
	}
}

// Format prints no state.
func (b *Body) Format(f fmt.State, _ rune) { f.Write([]byte("[secret body]")) }

// Close ends the body. The request must be over; if it is not, its next
// marker cuts the connection.
func (b *Body) Close() {
	b.seal.mu.Lock()
	delete(b.seal.bodies, b.name)
	delete(b.seal.open, b)
	b.seal.mu.Unlock()
	b.drop()
}

// drop gives all references up. The places stay known: what must not be
// written half must not be written inert either.
func (b *Body) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.closed = true
	for _, list := range [][]place{b.fresh, b.places} {
		for _, p := range list {
			b.seal.st.release(p.off)
		}
	}
}

// Reader returns r, which is the whole body with its markers. r must go on
// with a marker that it has begun without waiting for anything.
func (b *Body) Reader(r io.Reader) io.Reader { return &markedReader{b: b, r: r} }

// A markedReader notes where the markers are that pass.
type markedReader struct {
	b    *Body
	r    io.Reader
	at   int64  // bytes returned
	rest []byte // read, not returned: begins a marker or follows one
	err  error
}

var errLostMarker = errors.New("a registered marker is not in the body")

func (m *markedReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(m.rest) > 0 {
		return m.resume(p)
	}
	if m.err != nil {
		return 0, m.end()
	}
	n, err := m.r.Read(p)
	m.err = err
	sure := m.b.note(p[:n], m.at, err != nil)
	if sure < n {
		m.rest = append(m.rest, p[sure:n]...)
	}
	m.at += int64(sure)
	if sure == 0 && err == nil && n > 0 {
		return m.resume(p)
	}
	if sure > 0 || err == nil {
		return sure, nil
	}
	return 0, m.end()
}

// resume returns what was kept, as soon as it is sure what it is.
func (m *markedReader) resume(p []byte) (int, error) {
	for {
		sure := m.b.note(m.rest, m.at, m.err != nil)
		if sure > 0 {
			n := copy(p, m.rest[:sure])
			m.at += int64(n)
			m.rest = append(m.rest[:0], m.rest[n:]...)
			return n, nil
		}
		var more [512]byte
		n, err := m.r.Read(more[:])
		m.rest, m.err = append(m.rest, more[:n]...), err
	}
}

// end returns the error, once everything is returned. A body without one of
// its markers is not complete.
func (m *markedReader) end() error {
	m.b.mu.Lock()
	defer m.b.mu.Unlock()
	if m.err == io.EOF && len(m.b.fresh) > 0 {
		return errLostMarker
	}
	return m.err
}

// note enters the places of the fresh markers in text, which stands at at.
// It returns how many bytes hold no part of a marker that goes on after text,
// or that is already entered.
func (b *Body) note(text []byte, at int64, final bool) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := 0
	if n := len(b.places); n > 0 {
		i = int(min(max(b.places[n-1].end()-at, 0), int64(len(text)))) // the rest of one that is known
	}
	for len(b.fresh) > 0 {
		j := bytes.Index(text[i:], []byte(b.seal.prefix))
		if j < 0 {
			break
		}
		i += j
		k, partial := b.begins(text[i:])
		switch {
		case k >= 0:
			p := b.fresh[k]
			p.at = at + int64(i)
			b.places = append(b.places, p)
			b.fresh = append(b.fresh[:k], b.fresh[k+1:]...)
			i += len(p.marker)
		case partial && !final:
			return i
		default:
			i++
		}
	}
	if len(b.fresh) == 0 || final {
		return len(text)
	}
	return len(text) - overlap(text[i:], b.seal.prefix)
}

// begins returns the index of the fresh marker that text begins with, or -1
// and whether text is the beginning of one.
func (b *Body) begins(text []byte) (index int, partial bool) {
	for k, p := range b.fresh {
		if n := min(len(text), len(p.marker)); string(text[:n]) == p.marker[:n] {
			if n == len(p.marker) {
				return k, false
			}
			partial = true
		}
	}
	return -1, partial
}

// pass takes the next bytes of the body on their way out and appends their
// swaps, base added to their place. end says that the body ends with them.
func (b *Body) pass(text []byte, base int, end bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	from, to := b.sent, b.sent+int64(len(text))
	b.sent = to
	for len(b.places) > 0 && b.places[0].at < to {
		p := b.places[0]
		lo, hi := max(p.at, from), min(p.end(), to)
		switch {
		case b.closed:
			return errors.New("body is closed")
		case string(text[lo-from:hi-from]) != p.marker[lo-p.at:hi-p.at]:
			return errors.New("body is not what was read")
		}
		w := swap{at: base + int(lo-from), n: int(hi - lo), off: p.off + int(lo-p.at), block: -1}
		if hi == p.end() {
			w.block = p.off
			b.places = b.places[1:]
		}
		b.seal.swaps = append(b.seal.swaps, w)
		if hi < p.end() {
			break
		}
	}
	if end && len(b.places) > 0 {
		return errors.New("body ends within a marker")
	}
	return nil
}

// claim returns the body whose field has the value, or nil.
func (s *Seal) claim(value string) *Body {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bodies[value]
	delete(s.bodies, value) // one request each
	return b
}
