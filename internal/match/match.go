// Package match searches streams for many strings at once, leftmost-longest
// and in bounded memory.
//
// All that is derived from the strings lies in memory that the caller gives,
// so that the strings can be secret: with an arena in locked memory nothing
// of them is on the Go heap.
//
// The search looks at four bytes of the text every stride bytes, where an
// occurrence of any needle must show one of the stride grams that were
// entered for it (Wu and Manber, 1994). A bitmap says which grams exist, a
// hash table whose they are.
package match

import (
	"encoding/binary"
	"fmt"
)

// Shortest is the least length of a needle: one gram.
const Shortest = gram

const (
	gram      = 4
	maxStride = 16 // beyond, reading the text costs more than the search
	maxGrams  = 4096
)

// A Matcher finds needles. It is immutable; its methods may be called from
// several goroutines at once, as long as the arena is there.
type Matcher struct {
	*tables        // behind a pointer, so that no wrong verb of fmt prints them
	mask    uint32 // buckets-1
	stride  int
	longest int
	n       int
}

// tables are the parts of the arena.
type tables struct {
	bitmap  *[1 << 13]byte // by hash: some needle has such a gram
	initial *[1 << 5]byte  // by byte: some needle begins with it
	starts  []byte         // by bucket, uint32: where its entries begin
	entries []byte         // {needle, offset} uint32 each
	needles []byte         // {position, length} uint32 each, in text
	text    []byte
}

// Format prints nothing of the needles.
func (m *Matcher) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "matcher of %d", m.n) }

// Longest returns the length of the longest needle.
func (m *Matcher) Longest() int { return m.longest }

type layout struct {
	stride, longest, buckets, entries, text int
}

func plan(lens []int) layout {
	l := layout{stride: maxStride}
	for _, n := range lens {
		if n < Shortest {
			panic("match: needle is too short")
		}
		l.stride = min(l.stride, n-gram+1)
		l.longest = max(l.longest, n)
		l.text += n
	}
	for l.stride > 1 && l.stride*len(lens) > maxGrams {
		l.stride--
	}
	l.entries = l.stride * len(lens)
	l.buckets = 16
	for l.buckets < 2*l.entries && l.buckets < 1<<16 {
		l.buckets *= 2
	}
	return l
}

func (l layout) size(n int) int {
	return 1<<13 + 1<<5 + 4*(l.buckets+1) + 8*l.entries + 8*n + l.text
}

// Size returns how many bytes New needs for needles of these lengths.
func Size(lens []int) int { return plan(lens).size(len(lens)) }

// New builds a matcher in arena, which must be zeroed and Size(lens) long,
// and stay unchanged while the matcher is used. fill writes needle i to its
// place. Of equal needles the first is found.
func New(arena []byte, lens []int, fill func(i int, dst []byte)) *Matcher {
	l := plan(lens)
	if len(arena) < l.size(len(lens)) {
		panic("match: arena is too small")
	}
	cut := func(n int) []byte {
		part := arena[:n:n]
		arena = arena[n:]
		return part
	}
	m := &Matcher{tables: new(tables), stride: l.stride, longest: l.longest, n: len(lens), mask: uint32(l.buckets - 1)}
	m.bitmap = (*[1 << 13]byte)(cut(1 << 13))
	m.initial = (*[1 << 5]byte)(cut(1 << 5))
	m.starts = cut(4 * (l.buckets + 1))
	m.entries = cut(8 * l.entries)
	m.needles = cut(8 * len(lens))
	m.text = cut(l.text)
	at := 0
	for i, n := range lens {
		fill(i, m.text[at:at+n])
		put(m.needles, 2*i, at)
		put(m.needles, 2*i+1, n)
		at += n
	}
	m.index()
	return m
}

// index enters the first stride grams of every needle.
func (m *Matcher) index() {
	for i := range m.n {
		needle := m.needle(i)
		m.initial[needle[0]>>3] |= 1 << (needle[0] & 7)
		for off := range m.stride {
			h := hash(needle[off:])
			m.bitmap[h>>3] |= 1 << (h & 7)
			b := int(h & m.mask)
			put(m.starts, b, get(m.starts, b)+1)
		}
	}
	sum := 0
	for b := range int(m.mask) + 2 {
		sum += get(m.starts, b)
		put(m.starts, b, sum)
	}
	// From the last needle to the first, so that each bucket ends up in order
	// of needles and starts[b] where its entries begin.
	for i := m.n - 1; i >= 0; i-- {
		needle := m.needle(i)
		for off := m.stride - 1; off >= 0; off-- {
			b := int(hash(needle[off:]) & m.mask)
			e := get(m.starts, b) - 1
			put(m.starts, b, e)
			put(m.entries, 2*e, i)
			put(m.entries, 2*e+1, off)
		}
	}
}

// Needle returns needle i where it lies in the arena. It must not be changed.
func (m *Matcher) Needle(i int) []byte { return m.needle(i) }

func (m *Matcher) needle(i int) []byte {
	at, n := get(m.needles, 2*i), get(m.needles, 2*i+1)
	return m.text[at : at+n]
}

// hash maps the first gram of b to 16 bits.
func hash(b []byte) uint32 {
	return binary.LittleEndian.Uint32(b) * 0x9e3779b1 >> 16
}

func get(table []byte, i int) int    { return int(binary.LittleEndian.Uint32(table[4*i:])) }
func put(table []byte, i int, v int) { binary.LittleEndian.PutUint32(table[4*i:], uint32(v)) }
