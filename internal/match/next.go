package match

import "bytes"

// A Hit is an occurrence of needle ID at text[Start:End].
type Hit struct {
	Start, End, ID int
}

// Next returns the first hit in text, ok if there is one. text[:safe] is
// what precedes the hit, or, without one, what cannot be part of any hit
// whatever follows. With final nothing follows and safe is all of text.
//
// To go on, the caller drops what it has used (text[:End] or text[:safe])
// and calls again with the rest; any split of the text then gives the same
// hits.
func (m *Matcher) Next(text []byte, final bool) (h Hit, safe int, ok bool) {
	if m.n == 0 {
		return Hit{}, len(text), false
	}
	p := m.stride - 1
	for p+gram <= len(text) {
		g := hash(text[p:])
		if m.bitmap[g>>3&(1<<13-1)]&(1<<(g&7)) != 0 {
			h, hold, ok := m.at(text, p, g, final)
			if ok || hold >= 0 {
				return h, max(h.Start, hold), ok
			}
		}
		p += m.stride
	}
	if final {
		return Hit{}, len(text), false
	}
	return Hit{}, m.tail(text, max(0, p-m.stride+1)), false
}

// at checks the needles that have a gram of hash g at text[p]. All hits that
// begin in the stride bytes up to p show there and nowhere else. Without a
// hit, hold is where one may begin that the text does not decide, or -1.
func (m *Matcher) at(text []byte, p int, g uint32, final bool) (best Hit, hold int, ok bool) {
	hold = len(text)
	b := int(g & m.mask)
	for e, end := get(m.starts, b), get(m.starts, b+1); e < end; e++ {
		id := get(m.entries, 2*e)
		start := p - get(m.entries, 2*e+1)
		needle, rest := m.needle(id), text[start:]
		switch {
		case len(needle) > len(rest):
			if !final && start < hold && bytes.Equal(needle[:len(rest)], rest) {
				hold = start
			}
		case ok && (start > best.Start || start == best.Start && len(needle) <= best.End-best.Start):
		case bytes.Equal(needle, rest[:len(needle)]):
			best, ok = Hit{Start: start, End: start + len(needle), ID: id}, true
		}
	}
	switch {
	case ok && best.Start < hold:
		return best, -1, true
	case hold < len(text):
		return Hit{}, hold, false
	}
	return Hit{}, -1, false
}

// tail returns the first position from on where the end of text is a proper
// beginning of a needle, or len(text).
func (m *Matcher) tail(text []byte, from int) int {
	for at := from; at < len(text); at++ {
		c := text[at]
		if m.initial[c>>3]&(1<<(c&7)) != 0 && m.begins(text[at:]) {
			return at
		}
	}
	return len(text)
}

// begins reports whether rest is a beginning of a longer needle.
func (m *Matcher) begins(rest []byte) bool {
	if len(rest) >= gram {
		g := hash(rest)
		if m.bitmap[g>>3&(1<<13-1)]&(1<<(g&7)) == 0 {
			return false
		}
		b := int(g & m.mask)
		for e, end := get(m.starts, b), get(m.starts, b+1); e < end; e++ {
			if get(m.entries, 2*e+1) == 0 && startsWith(m.needle(get(m.entries, 2*e)), rest) {
				return true
			}
		}
		return false
	}
	for i := range m.n {
		if startsWith(m.needle(i), rest) {
			return true
		}
	}
	return false
}

func startsWith(needle, rest []byte) bool {
	return len(needle) > len(rest) && bytes.Equal(needle[:len(rest)], rest)
}
