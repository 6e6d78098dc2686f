package rewrite

import (
	"net/http"
	"strings"
	"unsafe"

	"github.com/cutoutdev/cutout/internal/match"
	"github.com/cutoutdev/cutout/internal/secret"
)

// A Scrubber finds values in what an upstream sends, in every
// [secret.Form], and puts placeholders, in the same form, in their place. It is
// immutable and may be used from several goroutines at once.
type Scrubber struct {
	needles *secret.Needles
	kept    []string // by form: replacement of the hit's own length
	whole   []string // by form: the whole placeholder
}

// NewScrubber returns a scrubber for the values of secrets. Its tables take
// much of the store: make one per set of secrets, not per connection.
func NewScrubber(secrets []*secret.Secret) (*Scrubber, error) {
	needles, err := secret.NewNeedles(secrets)
	if err != nil {
		return nil, err
	}
	s := &Scrubber{needles: needles}
	for _, f := range needles.Forms() {
		s.kept = append(s.kept, f.Kept())
		s.whole = append(s.whole, f.Whole())
	}
	return s, nil
}

// Longest returns the length of the longest text that is replaced.
func (s *Scrubber) Longest() int { return s.needles.Longest() }

// wrapped reports whether hit has line breaks in it.
func (s *Scrubber) wrapped(h match.Hit) bool { return h.End-h.Start != len(s.kept[h.ID]) }

// overwrite puts the placeholder, cut or padded, into the text of a hit. Line
// breaks stay where they are.
func (s *Scrubber) overwrite(text []byte, h match.Hit) {
	kept := s.kept[h.ID]
	if !s.wrapped(h) {
		copy(text, kept)
		return
	}
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\r', '\n':
		case '\\':
			i++ // and the letter of the escape
		default:
			text[i], kept = kept[0], kept[1:]
		}
	}
}

// next searches text, which may be a string's bytes. When the store is gone
// it fails, and text must not be passed on.
func (s *Scrubber) next(text []byte, final bool) (match.Hit, int, bool, error) {
	return s.needles.Next(text, final)
}

// String returns v with every value replaced, and how many there were; hit,
// if it is not nil, is called for each. When the store is closed it returns
// "".
func (s *Scrubber) String(v string, hit func(*secret.Secret)) (string, int) {
	rest := unsafe.Slice(unsafe.StringData(v), len(v)) // only read
	var b strings.Builder
	at, n := 0, 0
	for {
		h, _, ok, err := s.next(rest[at:], true)
		switch {
		case err != nil:
			return "", n
		case !ok && n == 0:
			return v, 0
		case !ok:
			b.WriteString(v[at:])
			return b.String(), n
		}
		b.WriteString(v[at : at+h.Start])
		if h.Start, h.End = h.Start+at, h.End+at; s.wrapped(h) {
			text := make([]byte, h.End-h.Start)
			for i := range text { // of the value only the breaks
				if c := v[h.Start+i]; c == '\r' || c == '\n' || c == '\\' || i > 0 && v[h.Start+i-1] == '\\' {
					text[i] = c
				}
			}
			s.overwrite(text, h)
			b.Write(text)
		} else {
			b.WriteString(s.whole[h.ID])
		}
		at = h.End
		n++
		if hit != nil {
			hit(s.needles.Form(h.ID).Secret)
		}
	}
}

// Find returns the secret whose value stands first in v, in any form, or
// nil. v is not known to be free of values when it fails.
func (s *Scrubber) Find(v string) (*secret.Secret, error) {
	h, _, ok, err := s.next(unsafe.Slice(unsafe.StringData(v), len(v)), true)
	if err != nil || !ok {
		return nil, err
	}
	return s.needles.Form(h.ID).Secret, nil
}

// Header scrubs h in place and calls hit, which may be nil, for each value,
// with nil where the store is closed and nobody knows. A field with a value
// in its name, which may have lost its case on the way, is removed. When the
// store is closed nothing of h is left.
func (s *Scrubber) Header(h http.Header, hit func(*secret.Secret)) {
	for name, values := range h {
		if found, err := s.needles.Folded(name); found != nil || err != nil {
			delete(h, name)
			if hit != nil {
				hit(found)
			}
			continue
		}
		for i, v := range values {
			if text, n := s.String(v, hit); n > 0 || len(text) != len(v) {
				values[i] = text
			}
		}
	}
}

// Close frees the scrubber's part of the store. Readers that are still in
// use fail.
func (s *Scrubber) Close() { s.needles.Close() }
