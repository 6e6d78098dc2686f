// Package match searches streams for many strings at once, leftmost-longest
// and in bounded memory.
//
// All that is derived from the strings lies in memory that the caller gives,
// so that the strings can be secret: with an arena in locked memory nothing
// of them is on the Go heap.
//
// The search looks at four to eight bytes of the text every stride bytes, where
// an occurrence of any needle must show one of the stride grams of its window
// (Wu and Manber, 1994). The window of a needle is where it has least in
// common with the others. A bitmap says which grams exist, a hash table whose
// they are.
package match

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sort"
)

// Shortest is the least length of a needle: one gram.
const Shortest = minGram

const (
	minGram = 4
	// Of placeholders that differ in a number alone, most grams of four bytes
	// are of all of them; of those of eight, which are as quick to load, few.
	maxGram  = 8
	markSize = 4
	// maxStride leaves room to choose a window in a needle of 20 bytes; with
	// more the search would not be faster than the memory.
	maxStride = 8
	maxLead   = 48      // how far into a needle its window is sought
	maxGrams  = 1 << 15 // beyond, more of them in the bitmap cost more than a shorter stride
	minBits   = 15      // of the bitmap: 4 KiB
	maxBits   = 18      // 32 KiB, what a level 1 cache holds

	maxNeedles = 1 << 16 // an entry has 16 bits for one; a thousand secrets come to it
)

// A Needle is what is told of a string before it is there.
type Needle struct {
	Len int
	// Wrap: it is found also with line breaks in it, as Base64 is written,
	// at least MinLine bytes apart and not before its third byte. They are CR
	// LF or LF, or their escapes in JSON. Only for needles without backslash,
	// CR and LF.
	Wrap bool
}

// MinLine is the shortest line in which a needle is found that may be
// wrapped. Encoders break lines at 60 to 76 letters.
const MinLine = 32

// minStart is how much of a needle precedes the first break. With one byte,
// many lines of live text would be held back until the next.
const minStart = 2

var breaks = [...]string{"\n", "\r\n", `\n`, `\r\n`}

const longestBreak = 4

// A Matcher finds needles. It is immutable; its methods may be called from
// several goroutines at once, as long as the arena is there.
type Matcher struct {
	*tables        // behind a pointer, so that no wrong verb of fmt prints them
	mask    uint32 // buckets-1
	shift   int    // of a hash: 64 - bits of the bitmap
	gram    int    // bytes of one
	stride  int
	lead    int // the largest distance of a window from its needle's beginning
	longest int
	n       int
}

// tables are the parts of the arena.
type tables struct {
	bitmap  []byte        // by hash: some needle has such a gram
	initial *[1 << 5]byte // by byte: some needle begins with it
	starts  []byte        // by bucket, uint32: where its entries begin
	entries []byte        // of needles that have a gram, uint64 each
	needles []byte        // {position, length, window<<1 | wrap, mark} uint32 each, in text
	order   []byte        // of needles by their text, uint32 each
	text    []byte
}

// fields are the numbers of a needle in the table. Its mark is where the gram
// is that it has least in common with the others.
const fields = 4

// An entry says that a gram is at offset of needle, and what is at the mark:
// most that have the gram but are not the needle show there, and nothing more
// need be fetched. In 8 bits each, from below: the offset, and how far from it
// the mark is; in 16 the needle, in 32 the gram at the mark.
type entry uint64

// noMark is for needles that may be wrapped: nothing of them is in a certain
// place.
const noMark = -128

func (m *Matcher) entry(needle, off int) entry {
	e := entry(needle<<16 | off)
	if m.wraps(needle) {
		return e | 1<<7<<8
	}
	mark := get(m.needles, fields*needle+3)
	return e | entry(uint8(mark-off))<<8 | entry(binary.LittleEndian.Uint32(m.needle(needle)[mark:]))<<32
}

func (e entry) offset() int  { return int(e & 0xff) }
func (e entry) toMark() int  { return int(int8(e >> 8)) }
func (e entry) needle() int  { return int(e >> 16 & 0xffff) }
func (e entry) mark() uint32 { return uint32(e >> 32) }

// Format prints nothing of the needles.
func (m *Matcher) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "matcher of %d", m.n) }

// Longest returns the length of the longest hit.
func (m *Matcher) Longest() int { return m.longest }

type layout struct {
	gram, stride, longest, bits, buckets, entries, text int
}

func plan(list []Needle) layout {
	if len(list) > maxNeedles {
		panic("match: too many needles")
	}
	l := layout{gram: maxGram, stride: maxStride}
	wrapped, shortest := 0, maxStride+maxGram-1
	for _, n := range list {
		if n.Len < Shortest {
			panic("match: needle is too short")
		}
		shortest = min(shortest, n.Len)
		l.text += n.Len
		if n.Wrap {
			wrapped++
			l.gram = minGram // longer ones have more breaks in them
			n.Len += longestBreak * (n.Len/MinLine + 1)
		}
		l.longest = max(l.longest, n.Len)
	}
	l.stride = min(l.stride, shortest-minGram+1)
	l.gram = min(l.gram, shortest-l.stride+1)
	// How many entries an offset of a needle has: of what is whole, and for
	// each break of the grams in which it stands and the one after it.
	perWrapped := 0
	for _, b := range breaks {
		perWrapped += len(b) + l.gram
	}
	perOffset := len(list) + perWrapped*wrapped
	for l.stride > 1 && l.stride*perOffset > maxGrams {
		l.stride--
	}
	l.entries = l.stride * perOffset
	l.bits = minBits
	for l.bits < maxBits && 1<<l.bits < 32*l.entries {
		l.bits++
	}
	l.buckets = 16
	for l.buckets < l.entries && l.buckets < 1<<l.bits {
		l.buckets *= 2
	}
	return l
}

func (l layout) size(n int) int {
	return 1<<l.bits/8 + 1<<5 + 4*(l.buckets+1) + 8*l.entries + 4*(fields+1)*n + l.text
}

func plain(lens []int) []Needle {
	list := make([]Needle, len(lens))
	for i, n := range lens {
		list[i].Len = n
	}
	return list
}

// Size returns how many bytes New needs for needles of these lengths.
func Size(lens []int) int { return SizeOf(plain(lens)) }

// SizeOf returns how many bytes Build needs for the needles of list.
func SizeOf(list []Needle) int { return plan(list).size(len(list)) }

// New is Build for needles that are never wrapped.
func New(arena []byte, lens []int, fill func(i int, dst []byte)) *Matcher {
	return Build(arena, plain(lens), fill)
}

// Build makes a matcher in arena, which must be zeroed and SizeOf(list) long,
// and stay unchanged while the matcher is used. fill writes needle i to its
// place. Of equal needles the first is found.
func Build(arena []byte, list []Needle, fill func(i int, dst []byte)) *Matcher {
	l := plan(list)
	if len(arena) < l.size(len(list)) {
		panic("match: arena is too small")
	}
	cut := func(n int) []byte {
		part := arena[:n:n]
		arena = arena[n:]
		return part
	}
	m := &Matcher{tables: new(tables), stride: l.stride, longest: l.longest, n: len(list), mask: uint32(l.buckets - 1), shift: 64 - l.bits, gram: l.gram}
	m.bitmap = cut(1 << l.bits / 8)
	m.initial = (*[1 << 5]byte)(cut(1 << 5))
	m.starts = cut(4 * (l.buckets + 1))
	m.entries = cut(8 * l.entries)
	m.needles = cut(4 * fields * len(list))
	m.order = cut(4 * len(list))
	m.text = cut(l.text)
	at := 0
	for i, n := range list {
		fill(i, m.text[at:at+n.Len])
		put(m.needles, fields*i, at)
		put(m.needles, fields*i+1, n.Len)
		if n.Wrap {
			put(m.needles, fields*i+2, 1)
		}
		put(m.order, i, i)
		at += n.Len
	}
	m.index()
	return m
}

// Needle returns needle i where it lies in the arena. It must not be changed.
func (m *Matcher) Needle(i int) []byte { return m.needle(i) }

func (m *Matcher) needle(i int) []byte {
	at, n := get(m.needles, fields*i), get(m.needles, fields*i+1)
	return m.text[at : at+n]
}

func (m *Matcher) wraps(i int) bool { return get(m.needles, fields*i+2)&1 != 0 }
func (m *Matcher) window(i int) int { return get(m.needles, fields*i+2) >> 1 }

// index fills the tables from the needles.
func (m *Matcher) index() {
	sort.Stable((*byText)(m))
	m.choose()
	m.each(func(h uint32, _ entry) {
		m.bitmap[h>>3] |= 1 << (h & 7)
		b := int(h & m.mask)
		put(m.starts, b, get(m.starts, b)+1)
	})
	sum := 0
	for b := range int(m.mask) + 2 {
		sum += get(m.starts, b)
		put(m.starts, b, sum)
	}
	m.each(func(h uint32, x entry) {
		b := int(h & m.mask)
		e := get(m.starts, b) - 1
		put(m.starts, b, e)
		binary.LittleEndian.PutUint64(m.entries[8*e:], uint64(x))
	})
	for i := range m.n {
		c := m.needle(i)[0]
		m.initial[c>>3] |= 1 << (c & 7)
	}
}

// choose finds the window of each needle: where the sum of how often its
// grams occur in all needles is least; and its mark. The bitmap serves as the
// counters. A
// needle that may be wrapped has its window at the beginning, so that no
// break precedes it.
func (m *Matcher) choose() {
	m.count(m.gram, func(i int, often []byte) {
		sum, best, window := 0, 0, 0
		for off, n := range often {
			sum += int(n)
			first := off - m.stride + 1
			if first > 0 {
				sum -= int(often[first-1])
			}
			if first == 0 || first > 0 && sum < best {
				best, window = sum, first
			}
		}
		put(m.needles, fields*i+2, window<<1)
		m.lead = max(m.lead, window)
	})
	m.count(markSize, func(i int, often []byte) {
		mark := 0
		for off, n := range often {
			if n < often[mark] {
				mark = off
			}
		}
		put(m.needles, fields*i+3, mark)
	})
}

// count calls f for each needle that may not be wrapped, with how often its
// grams of the size occur in all needles.
func (m *Matcher) count(size int, f func(needle int, often []byte)) {
	at := func(needle []byte, off int) *byte {
		return &m.bitmap[int(hash(load(needle[off:])&first(size), m.shift))%len(m.bitmap)]
	}
	var room [maxLead + maxStride]byte
	for pass := range 2 {
		for i := range m.n {
			needle := m.needle(i)
			often := room[:min(len(needle)-size+1, maxLead+m.stride)]
			for off := range often {
				c := at(needle, off)
				if pass == 0 && *c < 255 {
					*c++
				}
				often[off] = *c
			}
			if pass == 1 && !m.wraps(i) {
				f(i, often)
			}
		}
	}
	clear(m.bitmap)
	clear(room[:])
}

// each calls f with every gram and its entry. From the last needle to the
// first, so that each bucket ends up in order.
func (m *Matcher) each(f func(hash uint32, x entry)) {
	for i := m.n - 1; i >= 0; i-- {
		needle, from := m.needle(i), m.window(i)
		for off := from + m.stride - 1; off >= from; off-- {
			x := m.entry(i, off)
			f(m.hash(needle, off), x)
			if m.wraps(i) {
				for _, b := range breaks {
					m.broken(needle, off, b, func(h uint32) { f(h, x) })
				}
			}
		}
	}
}

// broken calls f with the grams that needle may have at off if there is the
// break before.
func (m *Matcher) broken(needle []byte, off int, brk string, f func(hash uint32)) {
	var room [maxGram]byte
	g := room[:m.gram]
	// The break stands before needle[k]; up to off-len(brk) all k give the
	// same gram.
	for k := max(minStart, off-len(brk)); k < off+m.gram && k < len(needle); k++ {
		for j := range g {
			switch at := off + j; {
			case at < k:
				g[j] = needle[at]
			case at < k+len(brk):
				g[j] = brk[at-k]
			default:
				g[j] = needle[at-len(brk)]
			}
		}
		f(m.hash(g, 0))
	}
	clear(g)
}

// byText sorts the order table.
type byText Matcher

func (m *byText) Len() int { return m.n }

func (m *byText) Less(i, j int) bool {
	x := (*Matcher)(m)
	return bytes.Compare(x.needle(get(m.order, i)), x.needle(get(m.order, j))) < 0
}

func (m *byText) Swap(i, j int) {
	a, b := get(m.order, i), get(m.order, j)
	put(m.order, i, b)
	put(m.order, j, a)
}

// hash maps the gram of b at off to the bits of the bitmap.
func (m *Matcher) hash(b []byte, off int) uint32 {
	return hash(load(b[off:])&first(m.gram), m.shift)
}

// hash maps word to the bits that shift leaves.
func hash(word uint64, shift int) uint32 {
	return uint32(word * 0x9e3779b97f4a7c15 >> (shift & 63))
}

// first is the mask of the first n bytes of a word.
func first(n int) uint64 { return ^uint64(0) >> ((64 - 8*n) & 63) }

// load returns the first word of b, zero where b has ended.
func load(b []byte) uint64 {
	if len(b) >= maxGram {
		return binary.LittleEndian.Uint64(b)
	}
	var word [maxGram]byte
	copy(word[:], b)
	return binary.LittleEndian.Uint64(word[:])
}

func get(table []byte, i int) int    { return int(binary.LittleEndian.Uint32(table[4*i:])) }
func put(table []byte, i int, v int) { binary.LittleEndian.PutUint32(table[4*i:], uint32(v)) }
