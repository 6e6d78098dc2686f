// Package rewrite finds placeholders in requests and puts markers for values
// in their place, and finds values in responses and puts placeholders in
// theirs.
//
// Everything is found leftmost-longest in a single pass: what was put in is
// never searched again. Streams give the same result however they are
// split, in bounded memory. The package never holds a value: markers are
// swapped by [secret.Seal], values compared by [secret.Needles].
package rewrite

import (
	"unsafe"

	"github.com/cutoutdev/cutout/internal/match"
	"github.com/cutoutdev/cutout/internal/secret"
)

// MaxOccurrences is how many placeholders one head may hold: a credential is
// sent once or twice, and more would only multiply the value.
const MaxOccurrences = 4

// A Position is where in a request a placeholder stands.
type Position uint8

// The positions. Header is the value of a header field as it is written,
// Basic the decoded credentials of Basic authentication in a credential
// header.
const (
	Header Position = iota + 1
	Basic
	Query
	Path
	InBody
	Trailer
	HeaderName
	Method
	Authority
	Fragment
)

// Never reports whether no value may ever go to the position, DESIGN §3: a
// request with a placeholder there is refused.
func (p Position) Never() bool { return p >= HeaderName }

// String returns the word for p in events, refusals and flags.
func (p Position) String() string {
	if int(p) >= len(positions) {
		return "unknown"
	}
	return positions[p]
}

var positions = [...]string{
	Header: "header", Basic: "basic", Query: "query", Path: "path", InBody: "body", Trailer: "trailer",
	HeaderName: "header name", Method: "method", Authority: "authority", Fragment: "fragment",
}

// An Occurrence is one placeholder in a request.
type Occurrence struct {
	Secret   *secret.Secret
	Position Position
	Field    string // name of the header field, for Header, Basic, Trailer and HeaderName
}

// A Finder finds the placeholders of a set of secrets. It is immutable and
// may be used from several goroutines at once.
type Finder struct {
	secrets []*secret.Secret
	exact   *match.Matcher
	folded  *match.Matcher // placeholders in lower case
	least   int            // length of the shortest placeholder
}

// NewFinder returns a finder for the placeholders of secrets, which are at
// least [match.Shortest] long.
func NewFinder(secrets []*secret.Secret) *Finder {
	f := &Finder{secrets: secrets}
	lens := make([]int, len(secrets))
	for i, s := range secrets {
		lens[i] = len(s.Placeholder)
		if i == 0 || lens[i] < f.least {
			f.least = lens[i]
		}
	}
	size := match.Size(lens)
	f.exact = match.New(make([]byte, size), lens, func(i int, dst []byte) { copy(dst, secrets[i].Placeholder) })
	f.folded = match.New(make([]byte, size), lens, func(i int, dst []byte) { lower(dst[:0], secrets[i].Placeholder) })
	return f
}

// lower folds ASCII letters only, so that lengths stay, and appends to dst.
func lower(dst []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// A span is a placeholder in a text.
type span struct {
	start, end int
	secret     *secret.Secret
	position   Position // in a request target
}

// find returns the placeholders in text. Most texts have none, and then it
// allocates nothing.
func (f *Finder) find(text string) []span {
	if len(text) < f.least {
		return nil
	}
	return f.search(f.exact, unsafe.Slice(unsafe.StringData(text), len(text))) // only read
}

// findFolded is find without regard to case.
func (f *Finder) findFolded(text string) []span {
	if len(text) < f.least {
		return nil
	}
	var room [128]byte
	return f.search(f.folded, lower(room[:0], text))
}

func (f *Finder) search(m *match.Matcher, text []byte) []span {
	var spans []span
	for base := 0; ; {
		h, _, ok := m.Next(text[base:], true)
		if !ok {
			return spans
		}
		spans = append(spans, span{start: base + h.Start, end: base + h.End, secret: f.secrets[h.ID]})
		base += h.End
	}
}
