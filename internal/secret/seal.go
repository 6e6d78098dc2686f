package secret

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
)

// A Seal stands between net/http's client and the TLS connection to the
// upstream, and is the only place where a value is written. The client gets
// a random marker in the value's stead ([Seal.Register]); the seal swaps it
// for the value, in a locked scratch slot, in the bytes that pass to the TLS
// connection.
//
// A marker is swapped once, and only where it belongs: one of
// [Seal.Register] in the head of a request or, after [Seal.Upgraded], in the
// stream, one of a [Body] at its place in that body. Bytes that are no
// registered marker pass as they are. When anything is not as it must be the
// connection is cut.
//
// Its methods may be called from several goroutines at once.
type Seal struct {
	net.Conn
	st     *Store
	prefix string // of all its markers
	field  string // name of the header field that names a Body
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex
	entries map[markerKey]*entry
	bodies  map[string]*Body // that no request has claimed, by the value of field
	open    map[*Body]bool   // all that are not closed
	unspent atomic.Int32     // of entries; written with mu held

	wmu      sync.Mutex // guards the rest
	err      error      // why the connection was cut
	frames   *framer    // HTTP/2
	messages *messages  // HTTP/1; nil once upgraded
	held     []byte     // upgraded: may begin a marker
	swaps    []swap
}

// ErrShort is in the error of [Seal.Register] for fewer bytes than a marker
// needs to be told from other text.
var ErrShort = fmt.Errorf("fewer than %d bytes can be swapped in Basic authentication only", keyLen)

// A swap puts n bytes of the store at off in the place of text[at:at+n].
// block is the block to release after the write, or -1.
type swap struct {
	at, n, off, block int
	key               mask
}

// NewSeal returns a seal on conn, the TLS connection to an upstream that
// speaks HTTP/2 or else HTTP/1. What is written to it begins with the first
// byte of the connection. st holds the values.
func NewSeal(conn net.Conn, http2 bool, st *Store) *Seal {
	s := &Seal{
		Conn:    conn,
		st:      st,
		prefix:  string(randomText(prefixLen)),
		field:   "X-" + string(randomText(bodyName)),
		closed:  make(chan struct{}),
		entries: make(map[markerKey]*entry),
	}
	if http2 {
		s.frames = newFramer(s)
	} else {
		s.messages = &messages{seal: s}
	}
	return s
}

// Format prints no state.
func (s *Seal) Format(f fmt.State, _ rune) { f.Write([]byte("[secret seal]")) }

// Register returns a marker for the encoding of parts: random letters and
// digits, exactly as many as the encoding has bytes, valid for one request
// head, or, on an upgraded connection, one place in the stream. Parts and encoding are fixed from here on: a value that is
// released later is still written.
func (s *Seal) Register(parts []Part, enc Encoding) (string, error) {
	off, n, err := s.st.encode(parts, enc)
	if err != nil {
		return "", fmt.Errorf("register marker: %w", err)
	}
	marker, err := s.enter(off, n)
	if err != nil {
		s.st.release(off)
		return "", fmt.Errorf("register marker: %w", err)
	}
	return marker, nil
}

func (s *Seal) enter(off, n int) (string, error) {
	if n < keyLen {
		return "", ErrShort
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries == nil {
		return "", net.ErrClosed
	}
	for {
		marker := s.prefix + string(randomText(n-prefixLen))
		key := markerKey([]byte(marker))
		if s.entries[key] == nil {
			s.entries[key] = &entry{marker: marker, off: off}
			s.unspent.Add(1)
			return marker, nil
		}
	}
}

// Forget ends a registration: the marker is mere text from now on. The
// request that it was made for must be over, or the marker spent.
func (s *Seal) Forget(marker string) {
	if len(marker) < keyLen {
		return
	}
	key := markerKey([]byte(marker))
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key]; e != nil && e.marker == marker {
		delete(s.entries, key)
		s.drop(e)
		if s.unspent.Load() == 0 {
			s.unhold()
		}
	}
}

// Upgraded tells the seal that the connection has changed its protocol: what
// is written from here on is a stream without messages, on HTTP/1 only.
func (s *Seal) Upgraded() error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	switch {
	case s.err != nil:
		return s.err
	case s.messages == nil || s.messages.state != inHead || len(s.messages.head) > 0:
		return errors.New("upgrade within a message")
	}
	s.messages = nil
	return nil
}

// unhold lets go what is held for a marker that will not come. The write
// must not be waited for: its peer may have stopped reading.
func (s *Seal) unhold() {
	if s.wmu.TryLock() {
		quiet := len(s.held) == 0
		s.wmu.Unlock()
		if quiet {
			return
		}
	}
	go func() {
		s.wmu.Lock()
		defer s.wmu.Unlock()
		if s.err != nil || len(s.held) == 0 || s.unspent.Load() > 0 {
			return
		}
		held := s.held
		s.held = nil
		if err := s.emit(held); err != nil {
			s.cut(err)
		}
	}()
}

// drop gives the entry's reference up. The caller holds mu.
func (s *Seal) drop(e *entry) {
	if !e.spent {
		e.spent = true
		s.unspent.Add(-1)
		s.st.release(e.off)
	}
}

// Close closes the connection and forgets every marker.
func (s *Seal) Close() error {
	s.once.Do(func() {
		close(s.closed)
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, e := range s.entries {
			s.drop(e)
		}
		s.entries = nil
		for b := range s.open {
			b.drop()
		}
		s.open, s.bodies = nil, nil
	})
	return s.Conn.Close()
}

// Write writes p with its markers swapped. It holds back a request head that
// p does not complete and, on an upgraded connection, the beginning of a
// marker that p ends in. Of bodies it holds nothing back.
func (s *Seal) Write(p []byte) (int, error) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if s.err != nil || len(p) == 0 {
		return 0, s.err
	}
	var err error
	switch {
	case s.frames != nil:
		err = s.frames.write(p)
	case s.messages != nil:
		err = s.messages.write(p)
	default:
		err = s.writeStream(p)
	}
	if err != nil {
		s.cut(err)
		return 0, err
	}
	return len(p), nil
}

// cut ends the connection without a TLS close_notify, so that the upstream
// sees an incomplete message as what it is.
func (s *Seal) cut(err error) {
	s.err = fmt.Errorf("seal: connection was cut: %w", err)
	s.release(s.swaps)
	if c, ok := s.Conn.(*tls.Conn); ok {
		c.NetConn().Close()
	}
	s.Close()
}

// writeStream swaps markers wherever they stand in an upgraded stream.
func (s *Seal) writeStream(p []byte) error {
	if len(s.held) == 0 && s.unspent.Load() == 0 {
		_, err := s.Conn.Write(p)
		return err
	}
	text := p
	if len(s.held) > 0 {
		text = append(s.held, p...)
	}
	safe, err := s.find(text, 0, false)
	if err != nil {
		return err
	}
	err = s.emit(text[:safe])
	s.held = bytes.Clone(text[safe:])
	return err
}

// find appends the swaps for text to s.swaps, base added to their place, and
// spends their markers. text[:safe] holds no part of a marker that goes on
// after text, unless final.
func (s *Seal) find(text []byte, base int, final bool) (safe int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := 0 // what precedes is decided
	for {
		i := bytes.Index(text[at:], []byte(s.prefix))
		if i < 0 {
			break
		}
		at += i
		e, partial := s.lookup(text[at:])
		switch {
		case partial && !final:
			return at, nil
		case e == nil:
			at++
		case e.spent:
			return 0, errors.New("marker was written twice")
		default:
			e.spent = true
			s.unspent.Add(-1)
			s.swaps = append(s.swaps, swap{at: base + at, n: len(e.marker), off: e.off, block: e.off, key: e.key})
			at += len(e.marker)
		}
	}
	if final || s.unspent.Load() == 0 {
		return len(text), nil
	}
	return len(text) - overlap(text[at:], s.prefix), nil
}

// lookup returns the entry whose marker text begins with, or else whether
// text is the beginning of an unspent one. text begins with the prefix.
func (s *Seal) lookup(text []byte) (e *entry, partial bool) {
	if len(text) >= keyLen {
		e = s.entries[markerKey(text)]
		switch {
		case e == nil:
			return nil, false
		case len(text) >= len(e.marker):
			if string(text[:len(e.marker)]) != e.marker {
				return nil, false
			}
			return e, false
		}
		return nil, !e.spent && strings.HasPrefix(e.marker, string(text))
	}
	for _, e := range s.entries {
		if !e.spent && strings.HasPrefix(e.marker, string(text)) {
			return nil, true
		}
	}
	return nil, false
}

// overlap returns the length of the longest proper prefix of p that text
// ends in.
func overlap(text []byte, p string) int {
	for n := min(len(p)-1, len(text)); n > 0; n-- {
		if string(text[len(text)-n:]) == p[:n] {
			return n
		}
	}
	return 0
}

// emit writes text with s.swaps made, which are in order of place. Pieces
// with a swap go through a slot, the others as they are.
func (s *Seal) emit(text []byte) error {
	swaps := s.swaps
	s.swaps = s.swaps[:0]
	defer s.release(swaps)
	if len(swaps) == 0 {
		if len(text) == 0 {
			return nil
		}
		_, err := s.Conn.Write(text)
		return err
	}
	for base := 0; base < len(text); base += slotSize {
		piece := text[base:min(base+slotSize, len(text))]
		if err := s.st.writeSwapped(s.Conn, piece, base, swaps, s.closed); err != nil {
			return err
		}
	}
	return nil
}

// release drops the references of spent markers.
func (s *Seal) release(swaps []swap) {
	for i, w := range swaps {
		if w.block >= 0 {
			s.st.release(w.block)
			swaps[i].block = -1
		}
	}
}
