package proxy

import (
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// What is on record as substituted was written: not the placeholders, in head
// and body, of a request whose body is refused before any of it goes up.
func TestRecordedAsWritten(t *testing.T) {
	hold := func(w *world) { everywhere(secret.Violation{Action: secret.Block, Hold: true})(w); spooling(w) }
	both := func(s *secret.Surfaces) option {
		return secrets(func(w *world) []*secret.Secret {
			x := w.secret("API_KEY", placeholder, value, "good.test", 443)
			x.Surfaces = s
			return []*secret.Secret{x, w.secret("OTHER_KEY", "$MSB_OTHER_KEY", otherValue, "evil.test", 443)}
		})
	}
	bodies := &secret.Surfaces{Header: true, Body: []secret.BodyPart{{}}}
	tests := map[string]struct {
		options []option
		body    string
		reason  policy.Reason
	}{
		"too many":          {[]option{inBodies}, strings.Repeat(placeholder+"\n", 10_000), policy.TooMany},
		"another's":         {[]option{both(nil), hold}, placeholder + " $MSB_OTHER_KEY", policy.HostNotAllowed},
		"one and another's": {[]option{both(bodies), hold}, placeholder + " $MSB_OTHER_KEY", policy.HostNotAllowed},
	}
	protocols(t, func(t *testing.T, protocol string) {
		for name, tt := range tests {
			w := newWorld(t, protocol, tt.options...)
			a := w.post(w.client(), "https://good.test/upload", tt.body, framings["fixed"](tt.body), header("Authorization", "Bearer "+placeholder))
			w.refused(a, 403, tt.reason)
			w.unseen()
			if e := w.found(audit.Substituted); len(e) > 0 {
				t.Errorf("%s: %d events, the first %+v", name, len(e), e[0])
			}
		}
	})
}
