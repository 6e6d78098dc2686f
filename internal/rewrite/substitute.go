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

// Substitute puts a marker, made by seal, for every placeholder of the
// secrets that allow admits into the credential headers of h: raw, or, in
// Basic credentials, one for the credentials as a whole. It changes nothing
// elsewhere and nothing if it fails; markers that seal has made by then are
// the caller's to forget.
func (f *Finder) Substitute(h http.Header, allow func(*secret.Secret) bool, seal sealFunc) error {
	type change struct {
		values []string
		i      int
		text   string
	}
	var changes []change
	for name, values := range h {
		if !CredentialHeader(name) {
			continue
		}
		for i, v := range values {
			text, err := f.substitute(v, allow, seal)
			if err != nil {
				return fmt.Errorf("substitute in %s: %w", name, err)
			}
			if text != v {
				changes = append(changes, change{values, i, text})
			}
		}
	}
	for _, c := range changes {
		c.values[c.i] = c.text
	}
	return nil
}

// substitute returns a field value with markers in it.
func (f *Finder) substitute(value string, allow func(*secret.Secret) bool, seal sealFunc) (string, error) {
	if c, ok := f.basic(value); ok {
		parts := split(c.plain, c.spans, allow)
		if parts == nil {
			return value, nil
		}
		marker, err := seal(parts, secret.Base64)
		return value[:c.from] + marker + value[c.to:], err
	}
	parts := split(value, f.find(value), allow)
	if parts == nil {
		return value, nil
	}
	var b strings.Builder
	for _, p := range parts {
		if p.Value.IsZero() {
			b.WriteString(p.Text)
			continue
		}
		marker, err := seal([]secret.Part{p}, secret.Raw)
		if err != nil {
			return "", err
		}
		b.WriteString(marker)
	}
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
