package hostname

import (
	"fmt"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// A Pattern matches one name, or with a leading "*." every name below a
// suffix at any depth, but not the suffix itself. The zero Pattern matches
// nothing. Patterns are comparable.
type Pattern struct {
	base     Name
	wildcard bool
}

// Exact returns the pattern that matches n alone.
func Exact(n Name) Pattern { return Pattern{base: n} }

// ParsePattern reads NAME or *.SUFFIX. A wildcard is refused if its suffix
// is a single label or a public suffix, ICANN or private, or has one below
// it: whoever registers a name there would be sent the secret.
func ParsePattern(s string) (Pattern, error) {
	rest, wildcard := strings.CutPrefix(s, "*.")
	if strings.Contains(rest, "*") {
		return Pattern{}, fmt.Errorf("invalid host pattern %q: only a leading \"*.\" may be a wildcard", s)
	}
	base, err := Parse(rest)
	if err != nil {
		return Pattern{}, fmt.Errorf("invalid host pattern %q: %w", s, err)
	}
	if wildcard && shared(base) {
		return Pattern{}, fmt.Errorf("host pattern %q covers names of different owners", s)
	}
	return Pattern{base: base, wildcard: wildcard}, nil
}

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
	if n == "" || p.base == "" {
		return false
	}
	if !p.wildcard {
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

// Base returns the name, without "*." for a wildcard.
func (p Pattern) Base() Name { return p.base }

func (p Pattern) String() string {
	if p.wildcard {
		return "*." + string(p.base)
	}
	return string(p.base)
}

// MarshalText writes the form that ParsePattern reads.
func (p Pattern) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads and checks a pattern.
func (p *Pattern) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePattern(string(text))
	return err
}
