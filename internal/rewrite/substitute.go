package rewrite

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/cutoutdev/cutout/internal/secret"
)

// A sealFunc returns the marker for an encoding of parts;
// [secret.Seal.Register] is one.
type sealFunc = func([]secret.Part, secret.Encoding) (marker string, err error)

// Substitute puts a marker, made by seal, for every placeholder that allow
// admits and that is [Allowed] into header values of h and into target, which it returns: raw in
// headers, one for the credentials as a whole in Basic, percent-encoded in
// path and query. All else stays byte for byte. h is changed only if it does
// not fail; markers that seal has made by then are the caller's to forget.
func (f *Finder) Substitute(h http.Header, target string, allow func(Occurrence) bool, seal sealFunc) (string, error) {
	type change struct {
		values []string
		i      int
		text   string
	}
	judged := allow
	allow = func(o Occurrence) bool { return Allowed(o) && judged(o) }
	var changes []change
	for name, values := range h {
		for i, v := range values {
			text, err := f.field(name, v, allow, seal)
			if err != nil {
				return target, fmt.Errorf("substitute in %s: %w", name, err)
			}
			if text != v {
				changes = append(changes, change{values, i, text})
			}
		}
	}
	out, err := f.inserted(target, f.inTarget(target), secret.Percent, func(s span) bool {
		return allow(Occurrence{Secret: s.secret, Position: s.position})
	}, seal)
	if err != nil {
		return target, fmt.Errorf("substitute in the target: %w", err)
	}
	for _, c := range changes {
		c.values[c.i] = c.text
	}
	return out, nil
}

// field returns a field value with markers in it.
func (f *Finder) field(name, value string, allow func(Occurrence) bool, seal sealFunc) (string, error) {
	c, ok := f.basic(value)
	if !ok {
		return f.inserted(value, f.find(value), secret.Raw, func(s span) bool {
			return allow(Occurrence{Secret: s.secret, Position: Header, Field: name})
		}, seal)
	}
	place := Header
	if CredentialHeader(name) {
		place = Basic
	}
	parts := split(c.plain, c.spans, func(s *secret.Secret) bool {
		return allow(Occurrence{Secret: s, Position: place, Field: name})
	})
	if parts == nil {
		return value, nil
	}
	marker, err := seal(parts, secret.Base64)
	return value[:c.from] + marker + value[c.to:], err
}

// inserted returns text with markers for the spans that allow admits.
func (f *Finder) inserted(text string, spans []span, enc secret.Encoding, allow func(span) bool, seal sealFunc) (string, error) {
	var b strings.Builder
	at := 0
	for _, s := range spans {
		if s.secret.Value.IsZero() || !allow(s) {
			continue
		}
		marker, err := seal([]secret.Part{{Value: s.secret.Value}}, enc)
		if err != nil {
			return "", err
		}
		b.WriteString(text[at:s.start])
		b.WriteString(marker)
		at = s.end
	}
	if at == 0 {
		return text, nil
	}
	b.WriteString(text[at:])
	return b.String(), nil
}

// split cuts text into parts with values in the place of the spans that
// allow admits. It returns nil if it admits none.
func split(text string, spans []span, allow func(*secret.Secret) bool) []secret.Part {
	var parts []secret.Part
	at := 0
	for _, s := range spans {
		if s.secret.Value.IsZero() || !allow(s.secret) {
			continue
		}
		if s.start > at {
			parts = append(parts, secret.Part{Text: text[at:s.start]})
		}
		parts = append(parts, secret.Part{Value: s.secret.Value})
		at = s.end
	}
	if parts != nil && at < len(text) {
		parts = append(parts, secret.Part{Text: text[at:]})
	}
	return parts
}
