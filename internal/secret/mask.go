package secret

import (
	"errors"
	"unicode/utf8"
)

// ErrNotText is returned for a value that is not UTF-8 where only that may be
// written.
var ErrNotText = errors.New("value is not UTF-8")

// A mask is what a client of WebSocket combines its payload with, RFC 6455
// §5.3. The zero mask changes nothing.
type mask [4]byte

// apply masks p, whose first byte is the at-th under the mask.
func (m mask) apply(p []byte, at int) {
	if m == (mask{}) {
		return
	}
	for i := range p {
		p[i] ^= m[(at+i)&3]
	}
}

// Mask makes the seal write what marker stands for as payload of a masked
// WebSocket text frame with the given key, beginning at byte offset of the
// payload. The marker itself must then be written unmasked. Mask is for a
// marker of this seal that was not yet written, on HTTP/1. It fails with
// [ErrNotText] if a text message may not hold what the marker stands for.
func (s *Seal) Mask(marker string, key [4]byte, offset int) error {
	if s.frames != nil || len(marker) < keyLen || offset < 0 {
		return errors.New("mask marker: not possible here")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[markerKey([]byte(marker))]
	if e == nil || e.marker != marker || e.spent {
		return errors.New("mask marker: it is not registered")
	}
	if err := s.st.text(e.off, len(marker)); err != nil {
		return err
	}
	for i := range e.key {
		e.key[i] = key[(offset+i)&3]
	}
	return nil
}

// text checks that n bytes at off are UTF-8.
func (s *Store) text(off, n int) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case s.closed:
		return ErrClosed
	case !utf8.Valid(s.mem.bytes[off : off+n]):
		return ErrNotText
	}
	return nil
}
