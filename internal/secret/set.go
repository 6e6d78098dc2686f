package secret

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cutoutdev/cutout/internal/hostname"
)

// A Set is an immutable snapshot of a sandbox's secrets. The nil Set is
// empty.
type Set struct {
	all    []*Secret
	former []*Secret // what some of them were, or are no longer there
}

// Lengths of a placeholder: shorter ones turn up by chance, longer ones do
// not fit every header.
const (
	minPlaceholder = 8
	maxPlaceholder = 1024
)

// NewSet checks secrets against each other and returns them as a set. It
// refuses two secrets of one name and a value shorter than [MinValue] that is
// not allowed to be, and
//
//   - a placeholder that is too short, too long or holds spaces, control or
//     non-ASCII characters;
//   - two placeholders that are equal or part of one another, in any spelling
//     or case: the text would stand for two values, and what is refused, or
//     read as another secret's, would depend on where it stands;
//   - a value that holds a placeholder in any spelling: it would be sent on as
//     text that looks like one;
//   - a placeholder that holds a value in any spelling: it would show the
//     guest the value.
func NewSet(secrets []*Secret) (*Set, error) {
	for i, s := range secrets {
		if s.Name == "" || len(s.Hosts) == 0 {
			return nil, fmt.Errorf("secret %q needs a name and a host", s.Name)
		}
		if !s.Value.IsZero() && s.Value.Len() < MinValue && !s.Short {
			return nil, fmt.Errorf("the value of %s is shorter than %d bytes", s.Name, MinValue)
		}
		if err := checkPlaceholder(s.Placeholder); err != nil {
			return nil, fmt.Errorf("placeholder of %s %w", s.Name, err)
		}
		for _, other := range secrets[:i] {
			if err := checkPair(other, s); err != nil {
				return nil, err
			}
		}
	}
	if err := checkValues(secrets); err != nil {
		return nil, err
	}
	return &Set{all: secrets}, nil
}

// Next returns the set of secrets that takes the place of s. What a secret was
// before it changed stays known, value and hosts, so that the value is found
// in what those hosts send until the end. Of more than maxFormer the oldest
// that have expired are given up; if there are none it fails with [ErrFormer].
func (s *Set) Next(secrets []*Secret) (*Set, error) {
	next, err := NewSet(secrets)
	if err != nil {
		return nil, err
	}
	next.former = slices.Clone(s.former)
	for _, old := range s.all {
		if !slices.ContainsFunc(secrets, func(x *Secret) bool { return x.Value == old.Value && slices.Equal(x.Hosts, old.Hosts) }) {
			next.former = append(next.former, old)
		}
	}
	for len(next.former) > maxFormer {
		if !next.Forget() {
			return nil, ErrFormer
		}
	}
	return next, nil
}

// Forget gives up the oldest former value that has expired and so is good for
// nothing any more, and reports whether there was one. It is for a set that
// nobody uses yet.
func (s *Set) Forget() bool {
	now := time.Now()
	i := slices.IndexFunc(s.former, func(f *Secret) bool { return !f.Expires.IsZero() && f.Expires.Before(now) })
	if i < 0 {
		return false
	}
	s.former = slices.Delete(s.former, i, i+1)
	return true
}

// ErrFormer is returned when a former value would have to be given up that may
// still be good.
var ErrFormer = fmt.Errorf("%d former values are searched for, and there is no room for more", maxFormer)

// maxFormer bounds what is searched for beside the values in use: each slows
// the search, and takes locked memory, which may bound it earlier.
const maxFormer = 64

// Former lists what secrets of the set were before they changed, the oldest
// first. Callers must not change the slice.
func (s *Set) Former() []*Secret { return s.former }

// Searched lists the secrets whose values are searched for, each value once.
func (s *Set) Searched() []*Secret {
	if s == nil {
		return nil
	}
	out := slices.Clone(s.all)
	for _, f := range s.former {
		if !slices.ContainsFunc(out, func(x *Secret) bool { return x.Value == f.Value }) {
			out = append(out, f)
		}
	}
	return out
}

// checkPair compares names and placeholders of two secrets.
func checkPair(a, b *Secret) error {
	switch {
	case a.Name == b.Name:
		return fmt.Errorf("secret %s is given twice", b.Name)
	case strings.EqualFold(a.Placeholder, b.Placeholder):
		return fmt.Errorf("%s and %s have the same placeholder", a.Name, b.Name)
	case spells(a.Placeholder, b.Placeholder):
		return fmt.Errorf("placeholder of %s is part of that of %s", b.Name, a.Name)
	case spells(b.Placeholder, a.Placeholder):
		return fmt.Errorf("placeholder of %s is part of that of %s", a.Name, b.Name)
	}
	return nil
}

// checkValues compares values and placeholders, the values where they lie.
func checkValues(secrets []*Secret) error {
	needles, err := NewNeedles(secrets)
	if err != nil {
		return err
	}
	defer needles.Close()
	for _, p := range secrets {
		for _, text := range readings(p.Placeholder) {
			held, err := needles.Folded(text)
			switch {
			case err != nil:
				return err
			case held != nil:
				return fmt.Errorf("placeholder of %s holds the value of %s", p.Name, held.Name)
			}
		}
		for _, text := range spellings(p.Placeholder) {
			for _, v := range secrets {
				if v.Value.contains(text) {
					return fmt.Errorf("value of %s holds the placeholder of %s", v.Name, p.Name)
				}
			}
		}
	}
	return nil
}

func checkPlaceholder(p string) error {
	switch {
	case len(p) < minPlaceholder:
		return fmt.Errorf("is shorter than %d bytes", minPlaceholder)
	case len(p) > maxPlaceholder:
		return fmt.Errorf("is longer than %d bytes", maxPlaceholder)
	case strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return fmt.Errorf("holds spaces, control or non-ASCII characters")
	}
	return nil
}

// All returns the secrets. Callers must not change the slice.
func (s *Set) All() []*Secret {
	if s == nil {
		return nil
	}
	return s.all
}

// HasHost reports whether name is a host of some secret, at any port, or was
// one: it may still give a value back.
func (s *Set) HasHost(name hostname.Name) bool {
	return slices.ContainsFunc(s.ever(), func(x *Secret) bool { return x.HasHost(name) })
}

// ever is what is and what was.
func (s *Set) ever() []*Secret {
	if s == nil || len(s.former) == 0 {
		return s.All()
	}
	return slices.Concat(s.all, s.former)
}

// ForHost returns the secrets bound to name, at any port: those whose values
// a response of that host may hold.
func (s *Set) ForHost(name hostname.Name) []*Secret {
	var out []*Secret
	for _, x := range s.All() {
		if x.HasHost(name) {
			out = append(out, x)
		}
	}
	return out
}

// HasPort reports whether some secret may go to a host at port.
func (s *Set) HasPort(port uint16) bool {
	for _, x := range s.ever() {
		for _, h := range x.Hosts {
			if h.Port == 0 || h.Port == port {
				return true
			}
		}
	}
	return false
}
