package match

import (
	"bytes"
	"encoding/binary"
)

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
	f := finding{m: m, text: text, final: final, hold: len(text)}
	p := m.stride - 1
	// A probe at p tells of hits that begin up to reach bytes before it.
	reach := m.lead + m.stride - 1
	for last := len(text) - m.gram; p <= last; p += m.stride {
		if p = m.skip(text, p, min(last, len(text)-maxGram)); p > last {
			break
		}
		g := m.hash(text, p)
		if m.bitmap[g>>3]&(1<<(g&7)) == 0 { // in the last bytes
			continue
		}
		if f.at(p, g); f.ok {
			// All that begin no later show within reach.
			last = min(last, f.best.Start+reach)
		}
	}
	if !final {
		if f.ok {
			f.hold = min(f.hold, f.best.Start+1) // what begins later does not matter
		}
		f.hold = m.tail(text, max(0, p-reach), f.hold)
	}
	switch {
	case f.ok && f.best.Start < f.hold:
		return f.best, f.best.Start, true
	case final:
		return Hit{}, len(text), false
	}
	return Hit{}, f.hold, false
}

// skip returns where, from p on and at last at the latest, some needle has the
// gram of text, or the first place beyond. It calls nothing, and says what
// capacity it needs, so that all is in registers.
func (m *Matcher) skip(text []byte, p, last int) int {
	bitmap, stride, mask, shift := m.bitmap, m.stride, first(m.gram), m.shift
	for ; p <= last; p += stride {
		g := hash(binary.LittleEndian.Uint64(text[p:p+maxGram:p+maxGram])&mask, shift)
		if bitmap[g>>3]&(1<<(g&7)) != 0 {
			break
		}
	}
	return p
}

// A finding is what a search has come to.
type finding struct {
	m     *Matcher
	text  []byte
	final bool
	best  Hit // the leftmost, and of those the longest
	ok    bool
	hold  int // where a hit may begin that the text does not decide
}

// at checks the needles that have a gram of hash g at text[p].
func (f *finding) at(p int, g uint32) {
	m := f.m
	b := int(g & m.mask)
	for list := m.entries[8*get(m.starts, b) : 8*get(m.starts, b+1)]; len(list) > 0; list = list[8:] {
		x := entry(binary.LittleEndian.Uint64(list))
		start := p - x.offset()
		if f.differs(x, p) || start < 0 || f.ok && start > f.best.Start {
			continue
		}
		id := x.needle()
		n, open := m.compare(id, f.text[start:])
		switch {
		case open:
			if !f.final {
				f.hold = min(f.hold, start)
			}
		case n > 0 && (!f.ok || start < f.best.Start || start+n > f.best.End || start+n == f.best.End && id < f.best.ID):
			f.best, f.ok = Hit{Start: start, End: start + n, ID: id}, true
		}
	}
}

// differs reports whether the text is not what x says, by its mark. This keeps
// cheap what has much in common with many needles.
func (f *finding) differs(x entry, p int) bool {
	to := x.toMark()
	at := p + to
	return to != noMark && 0 <= at && at+markSize <= len(f.text) && binary.LittleEndian.Uint32(f.text[at:]) != x.mark()
}

// compare returns how much of the beginning of text is needle id, 0 if it is
// not there; open: it may be once more text is there.
func (m *Matcher) compare(id int, text []byte) (n int, open bool) {
	needle := m.needle(id)
	if last := len(needle) - 1; last < len(text) && text[last] != needle[last] && !m.wraps(id) {
		return 0, false
	}
	if common := min(len(needle), len(text)); bytes.Equal(needle[:common], text[:common]) {
		return len(needle), len(text) < len(needle)
	}
	if !m.wraps(id) {
		return 0, false
	}
	at, line := 0, MinLine // in text; letters since the last break
	for i := 0; i < len(needle); {
		if at == len(text) {
			return 0, true
		}
		if text[at] == needle[i] {
			at, i, line = at+1, i+1, line+1
			continue
		}
		n, open := lineBreak(text[at:])
		if wrap := i >= minStart && line >= MinLine; !wrap || n == 0 {
			return 0, wrap && open
		}
		at, line = at+n, 0
	}
	return at, false
}

// lineBreak returns the length of the break that text begins with, 0 if there
// is none; open: there may be once more text is there.
func lineBreak(text []byte) (n int, open bool) {
	for _, b := range breaks {
		common := min(len(b), len(text))
		if b[:common] != string(text[:common]) {
			continue
		}
		if common == len(b) {
			return common, false
		}
		open = true
	}
	return 0, open
}

// tail returns the first position from on, and before hold, where the end of
// text is a proper beginning of a hit, or hold.
func (m *Matcher) tail(text []byte, from, hold int) int {
	for at := from; at < hold; at++ {
		c := text[at]
		if m.initial[c>>3]&(1<<(c&7)) != 0 && m.begins(text[at:]) {
			return at
		}
	}
	return hold
}

// begins reports whether rest is the beginning of something longer that would
// be a hit.
func (m *Matcher) begins(rest []byte) bool {
	// The needles that begin with rest follow it in the order of texts.
	lo, hi := 0, m.n
	for lo < hi {
		mid := (lo + hi) / 2
		if bytes.Compare(m.needle(get(m.order, mid)), rest) <= 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < m.n && bytes.HasPrefix(m.needle(get(m.order, lo)), rest) {
		return true
	}
	if bytes.IndexByte(rest, '\n') < 0 && bytes.IndexByte(rest, '\r') < 0 && bytes.IndexByte(rest, '\\') < 0 {
		return false
	}
	for id := range m.n {
		if m.wraps(id) {
			if _, open := m.compare(id, rest); open {
				return true
			}
		}
	}
	return false
}
