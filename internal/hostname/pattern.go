package hostname

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// A Pattern matches one name, or with a leading "*." every name below a
// suffix at any depth, but not the suffix itself, or, as "*", every name. The
// zero Pattern matches nothing. Patterns are comparable.
type Pattern struct {
	base     Name
	wildcard bool
}

// Exact returns the pattern that matches n alone.
func Exact(n Name) Pattern { return Pattern{base: n} }

// Any returns the pattern that matches every name. It is dangerous for a
// value, and no text that ParsePattern reads gives it.
func Any() Pattern { return Pattern{wildcard: true} }

// ErrShared is in the error for a wildcard that covers names of different
// owners.
var ErrShared = errors.New("covers names of different owners")

// ParsePattern reads NAME or *.SUFFIX. A wildcard is refused with ErrShared
// if its suffix is a single label or a public suffix, ICANN or private, or
// has one below it: whoever registers a name there would be sent the secret.
func ParsePattern(s string) (Pattern, error) {
	p, err := ParseShared(s)
	if err == nil && p.Shared() {
		return Pattern{}, fmt.Errorf("host pattern %q %w", s, ErrShared)
	}
	return p, err
}

// ParseShared reads what ParsePattern reads and wildcards that cover names of
// different owners. It is for a pattern that the user has admitted by name.
func ParseShared(s string) (Pattern, error) {
	rest, wildcard := strings.CutPrefix(s, "*.")
	if strings.Contains(rest, "*") {
		return Pattern{}, fmt.Errorf("invalid host pattern %q: only a leading \"*.\" may be a wildcard", s)
	}
	base, err := Parse(rest)
	if err != nil {
		return Pattern{}, fmt.Errorf("invalid host pattern %q: %w", s, err)
	}
	return Pattern{base: base, wildcard: wildcard}, nil
}

// Shared reports whether p covers names of different owners.
func (p Pattern) Shared() bool { return p.wildcard && (p.base == "" || shared(p.base)) }

// shared reports whether names below base can belong to different owners.
func shared(base Name) bool {
	if !strings.Contains(string(base), ".") {
		return true
	}
	if suffix, _ := publicsuffix.PublicSuffix(string(base)); suffix == string(base) {
		return true
	}
	return suffixBelow(base)
}

// Match reports whether n is one of the names that p stands for.
func (p Pattern) Match(n Name) bool {
	switch {
	case n == "":
		return false
	case p.base == "":
		return p.wildcard
	case !p.wildcard:
		return n == p.base
	}
	head, ok := strings.CutSuffix(string(n), string(p.base))
	return ok && len(head) > 1 && head[len(head)-1] == '.'
}

// Overlaps reports whether some name matches both p and q.
func (p Pattern) Overlaps(q Pattern) bool {
	switch {
	case !p.wildcard:
		return q.Match(p.base)
	case !q.wildcard:
		return p.Match(q.base)
	}
	return p.base == q.base || p.Match(q.base) || q.Match(p.base)
}

// Wildcard reports whether p stands for more than one name.
func (p Pattern) Wildcard() bool { return p.wildcard }

// Base returns the name, without "*." for a wildcard, "" for Any.
func (p Pattern) Base() Name { return p.base }

func (p Pattern) String() string {
	switch {
	case p == Any():
		return "*"
	case p.wildcard:
		return "*." + string(p.base)
	}
	return string(p.base)
}

// MarshalText writes the pattern as users do.
func (p Pattern) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText wrote, Any and shared patterns too:
// what a user may write was decided when it was read.
func (p *Pattern) UnmarshalText(text []byte) (err error) {
	if string(text) == "*" {
		*p = Any()
		return nil
	}
	*p, err = ParseShared(string(text))
	return err
}
