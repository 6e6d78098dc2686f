// Package secret holds what Cutout protects and the rules that go with it:
// the secret with its placeholder and hosts, the locked store in which
// values live, and the seal, the last step in which a value is written.
//
// A value never leaves the locked region except into a TLS record. It has no
// accessor; every way of printing it prints "[secret]".
package secret

import (
	"time"

	"github.com/cutoutdev/cutout/internal/hostname"
)

// A Secret is a value with its placeholder and the rules for it. As JSON it
// has everything but the value.
type Secret struct {
	Name        string          `json:"name"`
	Placeholder string          `json:"placeholder"` // "" = to be drawn with Store.Shape before there is a Set
	Hosts       []Host          `json:"hosts"`
	Surfaces    *Surfaces       `json:"surfaces,omitempty"`     // nil = DefaultSurfaces
	Scopes      []Scope         `json:"scopes,omitempty"`       // none = every request
	OnViolation *Violation      `json:"on_violation,omitempty"` // nil = the sandbox's
	Exclusive   bool            `json:"exclusive,omitempty"`    // no other credential may go to its hosts
	Plain       []hostname.Name `json:"plain,omitempty"`        // hosts that may get the value unencrypted
	Unverified  []hostname.Name `json:"unverified,omitempty"`   // hosts that may get it without proof of identity
	Short       bool            `json:"short,omitempty"`        // may be shorter than MinValue; then never scrubbed
	Value       Value           `json:"-"`
	Expires     time.Time       `json:"-"` // of the value; zero = nobody knows
	State       State           `json:"-"`
}

// A State says whether the value of a secret may be written at all.
type State uint8

// The states. A value that may not be written is still searched for, and its
// placeholder still known.
const (
	Live      State = iota
	Withdrawn       // it has expired
	Removed         // by the user
)

// A Host is where a secret may go: names and the port the guest dials.
type Host struct {
	Pattern hostname.Pattern
	Port    uint16 // 0 = any; parsers put 443 where none is written
}

// Match reports whether a connection to name at port is to h.
func (h Host) Match(name hostname.Name, port uint16) bool {
	return h.Pattern.Match(name) && (h.Port == 0 || h.Port == port)
}

// HasHost reports whether name is one of the secret's hosts, at any port.
func (s *Secret) HasHost(name hostname.Name) bool {
	for _, h := range s.Hosts {
		if h.Pattern.Match(name) {
			return true
		}
	}
	return false
}

// Covers reports whether every connection to o is one to h.
func (h Host) Covers(o Host) bool {
	if h.Port != 0 && h.Port != o.Port {
		return false
	}
	return h.Pattern == o.Pattern || h.Pattern == hostname.Any() ||
		h.Pattern.Wildcard() && o.Pattern != hostname.Any() && h.Pattern.Match(o.Pattern.Base())
}

// A Scope is a kind of request that may carry a value.
type Scope struct {
	Method string `json:"method"` // upper case; "*" = any
	Path   string `json:"path"`   // begins with a slash; * is any text within a segment, a last ** any rest
}
