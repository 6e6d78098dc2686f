package rewrite

import (
	"net/http"
	"strings"
	"unsafe"

	"github.com/cutoutdev/cutout/internal/match"
	"github.com/cutoutdev/cutout/internal/secret"
)

// A Scrubber finds values in what an upstream sends, as they are or within
// Base64 of any alignment and alphabet, and puts placeholders in their
// place. It is immutable and may be used from several goroutines at once.
type Scrubber struct {
	needles *secret.Needles
	kept    []string // by form: replacement of the hit's own length
	whole   []string // by form: the whole placeholder
}

// NewScrubber returns a scrubber for the values of secrets. Its tables take
// some 16 KiB of the store: make one per set of secrets, not per connection.
func NewScrubber(secrets []*secret.Secret) (*Scrubber, error) {
	needles, err := secret.NewNeedles(secrets)
	if err != nil {
		return nil, err
	}
	s := &Scrubber{needles: needles}
	for _, f := range needles.Forms() {
		p, n := f.Secret.Placeholder, f.Secret.Value.Len()
		s.kept = append(s.kept, f.Of(fit(p, n)))
		if f.Encoding == secret.Base64 {
			// What follows keeps its alignment.
			p = fit(p, len(p)+((n-len(p))%3+3)%3)
		}
		s.whole = append(s.whole, f.Of(p))
	}
	return s, nil
}

// fit cuts or pads p to n bytes.
func fit(p string, n int) string {
	if len(p) >= n {
		return p[:n]
	}
	return p + strings.Repeat("*", n-len(p))
}

// next searches text, which may be a string's bytes. When the store is gone
// it fails, and text must not be passed on.
func (s *Scrubber) next(text []byte, final bool) (match.Hit, int, bool, error) {
	return s.needles.Next(text, final)
}

// String returns v with every value replaced, and how many there were. When
// the store is closed it returns "".
func (s *Scrubber) String(v string) (string, int) {
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
		b.WriteString(s.whole[h.ID])
		at += h.End
		n++
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

// Header scrubs h in place and returns the number of hits. A field with a
// value in its name, which may have lost its case on the way, is removed.
// When the store is closed nothing of h is left.
func (s *Scrubber) Header(h http.Header) int {
	hits := 0
	for name, values := range h {
		if found, err := s.needles.Folded(name); found != nil || err != nil {
			delete(h, name)
			hits++
			continue
		}
		for i, v := range values {
			text, n := s.String(v)
			if n > 0 || len(text) != len(v) {
				values[i] = text
			}
			hits += n
		}
	}
	return hits
}

// Close frees the scrubber's part of the store. Readers that are still in
// use fail.
func (s *Scrubber) Close() { s.needles.Close() }
