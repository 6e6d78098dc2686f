package rewrite

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
)

// Head returns every placeholder in a request head, in an order that does
// not depend on h's: raw in header values, decoded in Basic credentials,
// with and without percent-encoding in target, and without regard to case in
// what is not case-sensitive or is written anew on the way: header names,
// method and authority.
//
// target is the request target as the guest wrote it, in any form of RFC
// 9112 §3.2.
func (f *Finder) Head(method, target, authority string, h http.Header) []Occurrence {
	if len(f.secrets) == 0 {
		return nil
	}
	var out []Occurrence
	for _, s := range f.findFolded(method) {
		out = append(out, Occurrence{Secret: s.secret, Position: Method})
	}
	for _, s := range f.findFolded(authority) {
		out = append(out, Occurrence{Secret: s.secret, Position: Authority})
	}
	out = f.target(out, target)
	out = f.header(out, h, Header)
	return sorted(out)
}

// Trailer returns every placeholder in a trailer section, as [Trailer] or
// [HeaderName].
func (f *Finder) Trailer(h http.Header) []Occurrence {
	return sorted(f.header(nil, h, Trailer))
}

func sorted(list []Occurrence) []Occurrence {
	if len(list) > 1 {
		slices.SortStableFunc(list, func(a, b Occurrence) int {
			return cmp.Or(cmp.Compare(a.Position, b.Position), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Secret.Name, b.Secret.Name))
		})
	}
	return list
}

// header appends what stands in the names and values of h. In a trailer
// nothing is decoded, since nothing is ever substituted.
func (f *Finder) header(out []Occurrence, h http.Header, pos Position) []Occurrence {
	for name, values := range h {
		for _, s := range f.findFolded(name) {
			out = append(out, Occurrence{Secret: s.secret, Position: HeaderName, Field: name})
		}
		for _, v := range values {
			place := pos
			spans := f.find(v)
			if b, ok := f.basic(v); ok {
				spans = b.spans
				if pos == Header && CredentialHeader(name) {
					place = Basic
				}
			}
			for _, s := range spans {
				out = append(out, Occurrence{Secret: s.secret, Position: place, Field: name})
			}
		}
	}
	return out
}

// target appends what stands in a request target.
func (f *Finder) target(out []Occurrence, target string) []Occurrence {
	for _, s := range f.inTarget(target) {
		out = append(out, Occurrence{Secret: s.secret, Position: s.position})
	}
	return out
}

// inTarget returns the placeholders in a request target in order, escaped or
// not. Start and end are those of the text as it stands.
func (f *Finder) inTarget(target string) []span {
	spans := f.find(target)
	if strings.Contains(target, "%") {
		plain, at := unescape(target)
		raw := spans
		spans = f.find(plain)
		for i, s := range spans {
			spans[i].start, spans[i].end = at[s.start], at[s.end]
		}
		// A placeholder with a percent sign of its own is found only raw.
		for _, s := range raw {
			if !slices.ContainsFunc(spans, func(t span) bool { return s.start < t.end && t.start < s.end }) {
				spans = append(spans, s)
			}
		}
		slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	}
	parts := partition(target)
	for i, s := range spans {
		spans[i].position = parts.position(s.start)
		if last := parts.position(s.end - 1); last != spans[i].position {
			spans[i].position = Fragment // in two parts: it belongs nowhere
		}
	}
	return spans
}

// parts are where the path, the query and the fragment of a target begin.
type parts struct{ path, query, fragment int }

// partition finds the parts of a target. What precedes the path of an
// absolute-form target and all of an authority-form one belongs to the
// authority.
func partition(target string) parts {
	p := parts{query: len(target), fragment: len(target)}
	if i := strings.IndexByte(target, '#'); i >= 0 {
		p.fragment = i
	}
	if i := strings.IndexByte(target[:p.fragment], '?'); i >= 0 {
		p.query = i
	} else {
		p.query = p.fragment
	}
	if strings.HasPrefix(target, "/") {
		return p
	}
	p.path = p.query
	if i := strings.Index(target[:p.query], "://"); i >= 0 {
		if j := strings.IndexByte(target[i+3:p.query], '/'); j >= 0 {
			p.path = i + 3 + j
		}
	}
	return p
}

func (p parts) position(at int) Position {
	switch {
	case at >= p.fragment:
		return Fragment
	case at >= p.query:
		return Query
	case at >= p.path:
		return Path
	}
	return Authority
}

// unescape decodes the valid percent-escapes of s, once, and returns for
// each byte of the result, and for its end, where in s it comes from.
func unescape(s string) (string, []int) {
	plain := make([]byte, 0, len(s))
	at := make([]int, 0, len(s))
	for i := 0; i < len(s); i++ {
		at = append(at, i)
		if s[i] == '%' && i+2 < len(s) {
			hi, ok1 := unhex(s[i+1])
			lo, ok2 := unhex(s[i+2])
			if ok1 && ok2 {
				plain = append(plain, hi<<4|lo)
				i += 2
				continue
			}
		}
		plain = append(plain, s[i])
	}
	return string(plain), append(at, len(s))
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}
