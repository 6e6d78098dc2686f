package secret

import (
	"encoding/base64"
	"errors"
	"fmt"
	"unicode/utf8"
)

// An Encoding is how the parts, put together, stand in the request.
type Encoding uint8

// The encodings. All but Raw and Base64 are of a single value.
const (
	Raw     Encoding = iota
	Base64           // RFC 4648 §4
	Percent          // RFC 3986 §2: only unreserved characters stay
	JSON             // within a string, RFC 8259 §7
	XML              // character data or an attribute's value, XML 1.0 §2.4
	Bare             // unquoted, in a syntax whose quoting is not followed
)

// ErrUnsafe is returned for a value that cannot be written in an encoding
// without changing what surrounds it.
var ErrUnsafe = errors.New("value cannot be written there")

// maxEncoded bounds the encoded result: it must fit the head of a request.
// The longest value, every byte of it escaped, is longer, but no server would
// take it.
const maxEncoded = 256 << 10

// EncodedLen returns how many bytes the encoding of parts has, which is the
// length of its marker.
func (s *Store) EncodedLen(parts []Part, enc Encoding) (int, error) {
	plain, err := s.plainLen(parts)
	if err != nil {
		return 0, err
	}
	switch enc {
	case Raw:
		return plain, nil
	case Base64:
		return base64.StdEncoding.EncodedLen(plain), nil
	}
	if len(parts) != 1 || parts[0].Value.IsZero() {
		return 0, errors.New("only a single value is escaped")
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	value, err := s.read(parts[0].Value)
	if err != nil {
		return 0, err
	}
	return escapedLen(value, enc)
}

// plainLen returns the length of parts, put together.
func (s *Store) plainLen(parts []Part) (int, error) {
	n := 0
	for _, p := range parts {
		switch {
		case p.Value.IsZero():
			n += len(p.Text)
		case p.Text != "" || p.Value.store != s:
			return 0, errors.New("part is not one text or one value of this store")
		default:
			n += p.Value.n
		}
		if n > maxEncoded {
			return 0, fmt.Errorf("credential is longer than %d bytes", maxEncoded)
		}
	}
	if n == 0 {
		return 0, errors.New("nothing to write")
	}
	return n, nil
}

// read returns the bytes of v in the region. The caller holds mu.
func (s *Store) read(v Value) ([]byte, error) {
	switch {
	case s.closed:
		return nil, ErrClosed
	case s.lookup(v) == nil:
		return nil, errReleased
	}
	return v.bytes(), nil
}

// encode puts the encoding of parts into the region and returns its block
// and length. A single value that is not changed is used where it lies.
func (s *Store) encode(parts []Part, enc Encoding) (off, n int, err error) {
	if n, err = s.EncodedLen(parts, enc); err != nil {
		return 0, 0, err
	}
	if v := parts[0].Value; len(parts) == 1 && !v.IsZero() && n == v.n {
		return v.off, n, s.retain(v) // no escape is as short as what it stands for
	}
	if off, _, err = s.alloc(n); err != nil {
		return 0, 0, err
	}
	if err := s.assemble(off, n, parts, enc); err != nil {
		s.release(off)
		return 0, 0, err
	}
	return off, n, nil
}

// assemble writes the encoding into the block at off.
func (s *Store) assemble(off, n int, parts []Part, enc Encoding) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	block := s.mem.bytes[off : off+n]
	if enc != Raw && enc != Base64 {
		value, err := s.read(parts[0].Value)
		if err != nil {
			return err
		}
		escape(block, value, enc)
		return nil
	}
	// The plain text of Base64 is put at the block's end and encoded towards
	// it: the n-th group of four is written after the n-th group of three
	// was read, and never overtakes it.
	plain, _ := s.plainLen(parts)
	at := n - plain
	for _, p := range parts {
		if p.Value.IsZero() {
			at += copy(block[at:], p.Text)
			continue
		}
		value, err := s.read(p.Value)
		if err != nil {
			return err
		}
		at += copy(block[at:], value)
	}
	if enc == Base64 {
		encodeOverlapped(block, block[n-plain:])
	}
	return nil
}

// escapedLen returns how long value is with its escapes.
func escapedLen(value []byte, enc Encoding) (int, error) {
	if (enc == JSON || enc == XML) && !utf8.Valid(value) {
		return 0, ErrUnsafe
	}
	n, dots := 0, 0
	for _, c := range value {
		size, _ := escapeOf(c, enc)
		if size == 0 {
			return 0, ErrUnsafe
		}
		if c == '.' {
			dots++
		}
		n += size
	}
	if enc == Percent && dots == len(value) {
		return 0, ErrUnsafe // as a segment of a path it would be a way up, RFC 3986 §3.3
	}
	if n > maxEncoded {
		return 0, fmt.Errorf("credential is longer than %d bytes", maxEncoded)
	}
	return n, nil
}

// escape writes value with its escapes to dst, which has their length.
func escape(dst, value []byte, enc Encoding) {
	for _, c := range value {
		size, text := escapeOf(c, enc)
		switch {
		case text != "":
			copy(dst, text)
		case size == 1:
			dst[0] = c
		case enc == Percent:
			dst[0], dst[1], dst[2] = '%', upperHex[c>>4], upperHex[c&15]
		default: // JSON
			copy(dst, `\u00`)
			dst[4], dst[5] = lowerHex[c>>4], lowerHex[c&15]
		}
		dst = dst[size:]
	}
}

const (
	upperHex = "0123456789ABCDEF"
	lowerHex = "0123456789abcdef"
)

// escapeOf returns how many bytes c takes, 0 if it cannot be written, and
// its escape if that is a fixed one.
func escapeOf(c byte, enc Encoding) (size int, text string) {
	switch enc {
	case Percent:
		if !unreserved(c) {
			return 3, ""
		}
	case JSON:
		switch {
		case c == '"':
			return 2, `\"`
		case c == '\\':
			return 2, `\\`
		case c < ' ' || c == 0x7f:
			return 6, ""
		}
	case XML:
		switch c {
		case '&':
			return 5, "&amp;"
		case '<':
			return 4, "&lt;"
		case '>':
			return 4, "&gt;"
		case '"':
			return 5, "&#34;"
		case '\'':
			return 5, "&#39;"
		case '\t':
			return 4, "&#9;"
		}
		if c < ' ' { // XML 1.0 §2.2 has no way to write it
			return 0, ""
		}
	case Bare:
		// What URLs and Base64 are made of; nothing of it quotes, separates
		// or begins a comment in YAML or CSV.
		if !unreserved(c) && c != '/' && c != '+' && c != '=' {
			return 0, ""
		}
	default:
		return 0, ""
	}
	return 1, ""
}

// unreserved reports whether c never needs an escape, RFC 3986 §2.3.
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

// encodeOverlapped writes the Base64 encoding of src to dst. src is the end
// of dst, and both have their exact lengths.
func encodeOverlapped(dst, src []byte) {
	at := 0
	for ; len(src) > 0; src = src[min(3, len(src)):] {
		var a, b, c byte
		a = src[0]
		if len(src) > 1 {
			b = src[1]
		}
		if len(src) > 2 {
			c = src[2]
		}
		left := len(src)
		dst[at], dst[at+1], dst[at+2], dst[at+3] = stdLetters[a>>2], stdLetters[a<<4&0x3f|b>>4], stdLetters[b<<2&0x3f|c>>6], stdLetters[c&0x3f]
		if left < 3 {
			dst[at+3] = '='
		}
		if left < 2 {
			dst[at+2] = '='
		}
		at += 4
	}
}
