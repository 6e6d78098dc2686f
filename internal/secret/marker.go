package secret

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
)

// A Part is a piece of what is to be written: either Text or Value is set.
type Part struct {
	Text  string
	Value Value
}

// An Encoding is how the parts, put together, stand in the request.
type Encoding uint8

// The encodings.
const (
	Raw Encoding = iota
	Base64
)

// maxEncoded bounds the encoded result: it must fit the head of a request.
const maxEncoded = 128 << 10

// prefixLen letters are common to all markers of a seal, so that one search
// finds every candidate; keyLen letters tell its markers apart.
const (
	prefixLen = 4
	keyLen    = MinValue
)

type markerKey [keyLen]byte

// An entry is what a marker stands for: a block of the store with as many
// encoded bytes as the marker has letters. Until it is spent it holds a
// reference to the block.
type entry struct {
	marker string
	off    int
	key    mask
	spent  bool
}

// RFC 4648 §4 and §5.
const (
	alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	stdLetters   = alphanumeric + "+/"
	urlLetters   = alphanumeric + "-_"
)

// randomText returns n random letters and digits.
func randomText(n int) []byte {
	out := make([]byte, 0, n)
	var raw [64]byte
	for len(out) < n {
		rand.Read(raw[:])
		for _, c := range raw {
			// 248 is the largest multiple of 62 in a byte: no letter is
			// likelier than another.
			if c < 248 && len(out) < n {
				out = append(out, alphanumeric[c%62])
			}
		}
	}
	return out
}

// encode puts the encoding of parts into the region and returns its block
// and length. A single raw value is used where it lies.
func (s *Store) encode(parts []Part, enc Encoding) (off, n int, err error) {
	plain := 0
	for _, p := range parts {
		switch {
		case p.Value.IsZero():
			plain += len(p.Text)
		case p.Text != "" || p.Value.store != s:
			return 0, 0, errors.New("part is not one text or one value of this store")
		default:
			plain += p.Value.n
		}
		if plain > maxEncoded {
			return 0, 0, fmt.Errorf("credential is longer than %d bytes", maxEncoded)
		}
	}
	if enc == Raw && len(parts) == 1 && !parts[0].Value.IsZero() {
		return parts[0].Value.off, plain, s.retain(parts[0].Value)
	}
	n = plain
	switch enc {
	case Raw:
	case Base64:
		n = base64.StdEncoding.EncodedLen(plain)
	default:
		return 0, 0, errors.New("unknown encoding")
	}
	if n == 0 {
		return 0, 0, errors.New("nothing to write")
	}
	if off, _, err = s.alloc(n); err != nil {
		return 0, 0, err
	}
	if err := s.assemble(off, n, plain, parts, enc); err != nil {
		s.release(off)
		return 0, 0, err
	}
	return off, n, nil
}

// assemble writes the encoding into the block at off. The plain text is put
// at the block's end and encoded towards it: the n-th group of four is
// written after the n-th group of three was read, and never overtakes it.
func (s *Store) assemble(off, n, plain int, parts []Part, enc Encoding) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	block := s.mem.bytes[off : off+n]
	at := n - plain
	for _, p := range parts {
		if p.Value.IsZero() {
			at += copy(block[at:], p.Text)
			continue
		}
		if s.lookup(p.Value) == nil {
			return errReleased
		}
		at += copy(block[at:], p.Value.bytes())
	}
	if enc == Base64 {
		encodeOverlapped(block, block[n-plain:])
	}
	return nil
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
