package secret

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A Form is one way in which a value may stand in what an upstream sends.
type Form struct {
	Secret *Secret
	Len    int // in bytes, without line breaks

	way way
	// For Base64: how many bytes of the encoded group precede the value, 0 to
	// 2, and whether the alphabet is the one of URLs. The form has only those
	// letters that the value alone determines; one letter at either end that
	// it shares with its neighbours is not part of it.
	shift int
	skip  int // letters of those left out, to be found after a line break
	url   bool
}

// A way of writing the bytes of a value.
type way struct {
	kind  kind
	keep  string    // ASCII besides letters and digits that is not escaped
	also  string    // for JSON: what is escaped besides quotes, backslash and controls
	names [5]string // for XML: entities of & < > " '; "" = as it is
	upper bool      // hexadecimal digits
	plus  bool      // a space is a plus sign
	ascii bool      // for JSON: nothing but ASCII is left
	slash bool      // for JSON: \/
}

type kind uint8

const (
	raw kind = iota
	base64Letters
	percent
	jsonEscapes
	entities
	everyPercent // %41
	everyJSON    // \u0041
	everyDecimal // &#65;
	everyHex     // &#x41;
	bareHex      // 41
)

// maxFull is the longest value that is searched for in all ways. For longer
// ones, which are certificates or the like, they would take more memory than
// may be locked.
const maxFull = 1 << 10

// commonWays are those of ways in which longer values are searched for too:
// what browsers, Go, Python and PHP write.
var commonWays = []way{
	{kind: percent, keep: "-_.!~*'()", upper: true},
	{kind: percent, keep: "-._~", upper: true},
	{kind: percent, keep: "-._~", plus: true, upper: true},
	{kind: jsonEscapes},
	{kind: jsonEscapes, also: "<>&"},
	{kind: jsonEscapes, ascii: true},
	{kind: jsonEscapes, ascii: true, slash: true},
	{kind: entities, names: [5]string{"&amp;", "&lt;", "&gt;", "", ""}},
	{kind: entities, names: [5]string{"&amp;", "&lt;", "&gt;", "&#34;", "&#39;"}},
	{kind: entities, names: [5]string{"&amp;", "&lt;", "&gt;", "&quot;", "&#x27;"}},
	{kind: entities, names: [5]string{"&amp;", "&lt;", "&gt;", "&quot;", "&#039;"}},
}

// ways are all but raw and Base64. Many write a value alike.
var ways = func() []way {
	var out []way
	for _, upper := range []bool{true, false} {
		for _, w := range []way{
			{keep: "-_.!~*'()"},            // encodeURIComponent
			{keep: "-_.!~*'();,/?:@&=+$#"}, // encodeURI
			{keep: "-._~"},                 // RFC 3986, unreserved
			{keep: "-._~/"},                // a path
			{keep: "-._~$&+,/:;=@"},        // Go's paths
			{keep: "-._~$&+:=@"},           // and one part of them
			{keep: "-._*", plus: true},     // forms, as browsers and Java write them
			{keep: "-._~", plus: true},     // as Go and Python do
		} {
			w.kind, w.upper = percent, upper
			out = append(out, w)
		}
		for i := range 8 {
			w := way{kind: jsonEscapes, upper: upper, slash: i&1 != 0, ascii: i&2 != 0}
			if i&4 != 0 {
				w.also = "<>&"
			}
			out = append(out, w)
		}
		out = append(out,
			way{kind: jsonEscapes, upper: upper, ascii: true, also: "<>&'+`\""}, // .NET
			way{kind: jsonEscapes, upper: upper, also: "<>&'="},                 // Gson
			way{kind: everyPercent, upper: upper}, way{kind: everyJSON, upper: upper},
			way{kind: everyHex, upper: upper}, way{kind: bareHex, upper: upper})
	}
	for _, apos := range []string{"", "&#39;", "&#x27;", "&apos;", "&#039;"} {
		for _, quot := range []string{"", "&quot;", "&#34;"} {
			out = append(out, way{kind: entities, names: [5]string{"&amp;", "&lt;", "&gt;", quot, apos}},
				way{kind: entities, names: [5]string{"&amp;", "&lt;", "", quot, apos}})
		}
	}
	return append(out, way{kind: everyDecimal})
}()

// formsOf returns the forms of s, each spelling once.
func formsOf(s *Secret) ([]Form, error) {
	st := s.Value.store
	st.mu.RLock()
	defer st.mu.RUnlock()
	if st.closed {
		return nil, ErrClosed
	}
	if st.lookup(s.Value) == nil {
		return nil, errReleased
	}
	value := s.Value.bytes()
	forms := []Form{{Secret: s, Len: len(value)}}
	list := ways
	if len(value) > maxFull {
		list = commonWays
	}
	for _, w := range list {
		f := Form{Secret: s, way: w}
		f.Len = f.size(value)
		same := func(g Form) bool { return g.Len == f.Len && f.same(g, value) }
		if !slices.ContainsFunc(forms, same) {
			forms = append(forms, f)
		}
	}
	for shift := range 3 {
		f := Form{Secret: s, way: way{kind: base64Letters}, shift: shift}
		f.Len = f.units(len(value))
		g := f
		g.url = true
		forms = append(forms, f)
		if !f.same(g, value) {
			forms = append(forms, g)
		}
		f.skip, f.Len = 1, f.Len-1
		forms = append(forms, f)
	}
	return forms, nil
}

// Wrap reports whether the form is found with line breaks in it.
func (f Form) Wrap() bool { return f.way.kind == base64Letters && !f.url }

// core returns which letters of the Base64 encoding of f.shift unknown bytes
// and then n known ones the known ones alone determine, but for those to
// skip. Letter i encodes the bits from 6i to 6i+6.
func (f Form) core(n int) (from, to int) {
	return (8*f.shift+5)/6 + f.skip, 8 * (f.shift + n) / 6
}

// A unit is what stands for one character of a value, or one letter of its
// Base64. It is never longer than a surrogate pair in JSON.
type unit [12]byte

// units is how many positions unit knows.
func (f Form) units(size int) int {
	if f.way.kind == base64Letters {
		from, to := f.core(size)
		return to - from
	}
	return size
}

// size returns the length of value in the form.
func (f Form) size(value []byte) int {
	var u unit
	defer clear(u[:])
	sum := 0
	for i := 0; i < f.units(len(value)); {
		n, used := f.unit(&u, value, i)
		sum, i = sum+n, i+used
	}
	return sum
}

// same reports whether f and g, of which both or none are Base64, write value
// alike.
func (f Form) same(g Form, value []byte) bool {
	var a, b unit
	defer func() { a, b = unit{}, unit{} }()
	for i := 0; i < f.units(len(value)); {
		n, used := f.unit(&a, value, i)
		m, also := g.unit(&b, value, i)
		if used != also || !bytes.Equal(a[:n], b[:m]) {
			return false
		}
		i += used
	}
	return true
}

// write puts the form of value, which lies in the region, into dst, which
// does too.
func (f Form) write(dst, value []byte) {
	var u unit
	defer clear(u[:])
	for i := 0; i < f.units(len(value)); {
		n, used := f.unit(&u, value, i)
		dst = dst[copy(dst, u[:n]):]
		i += used
	}
}

// unit writes what stands for value[i:i+used] and returns its length.
func (f Form) unit(u *unit, value []byte, i int) (n, used int) {
	c := value[min(i, len(value)-1)]
	w := f.way
	switch w.kind {
	case base64Letters:
		u[0] = f.letter(value, i)
		return 1, 1
	case everyPercent, bareHex:
		return w.hex(u, c), 1
	case percent:
		switch {
		case c == ' ' && w.plus:
			u[0] = '+'
			return 1, 1
		case !isAlphanumeric(c) && strings.IndexByte(w.keep, c) < 0:
			return w.hex(u, c), 1
		}
	case jsonEscapes, everyJSON:
		if r, size := utf8.DecodeRune(value[i:]); w.escapes(r, size) {
			return w.json(u, r), size
		}
	case everyDecimal, everyHex:
		if r, size := utf8.DecodeRune(value[i:]); r != utf8.RuneError || size > 1 {
			return w.reference(u, r), size
		}
	case entities:
		if k := strings.IndexByte("&<>\"'", c); k >= 0 && w.names[k] != "" {
			return copy(u[:], w.names[k]), 1
		}
	}
	u[0] = c
	return 1, 1
}

// letter returns the Base64 letter i of the core.
func (f Form) letter(value []byte, i int) byte {
	letters := stdLetters
	if f.url {
		letters = urlLetters
	}
	from, _ := f.core(len(value))
	bit := 6*(from+i) - 8*f.shift // in value
	w := uint(value[bit/8]) << 8
	if bit/8+1 < len(value) {
		w |= uint(value[bit/8+1])
	}
	return letters[w>>(10-bit%8)&0x3f]
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func (w way) digit(v uint32) byte {
	if w.upper {
		return "0123456789ABCDEF"[v&15]
	}
	return "0123456789abcdef"[v&15]
}

// hex writes c as two digits, after a percent sign unless they stay alone.
func (w way) hex(u *unit, c byte) int {
	n := 0
	if w.kind != bareHex {
		u[0], n = '%', 1
	}
	u[n], u[n+1] = w.digit(uint32(c)>>4), w.digit(uint32(c))
	return n + 2
}

// escapes reports whether a JSON string does not hold r as it is.
func (w way) escapes(r rune, size int) bool {
	switch {
	case r == utf8.RuneError && size == 1:
		return false // not UTF-8, which JSON cannot say
	case w.kind == everyJSON, r < ' ', r == '"', r == '\\', r == '/' && w.slash:
		return true
	case r >= utf8.RuneSelf:
		return w.ascii
	}
	return strings.IndexByte(w.also, byte(r)) >= 0
}

func (w way) json(u *unit, r rune) int {
	const from, to = "\"\\/\b\f\t", "\"\\/bft"
	if k := strings.IndexRune(from, r); k >= 0 && w.kind != everyJSON && !strings.ContainsRune(w.also, r) {
		u[0], u[1] = '\\', to[k]
		return 2
	}
	if r1, r2 := utf16.EncodeRune(r); r1 != utf8.RuneError {
		n := w.json16(u[:], uint32(r1))
		return n + w.json16(u[n:], uint32(r2))
	}
	return w.json16(u[:], uint32(r))
}

func (w way) json16(u []byte, v uint32) int {
	n := copy(u, `\u`)
	for shift := 12; shift >= 0; shift -= 4 {
		u[n] = w.digit(v >> shift)
		n++
	}
	return n
}

// reference writes r as a numeric character reference.
func (w way) reference(u *unit, r rune) int {
	n, base, from := copy(u[:], "&#"), uint32(10), 0
	if w.kind == everyHex {
		u[n], base, n = 'x', 16, n+1
	}
	from = n
	for v := uint32(r); ; v /= base {
		u[n] = w.digit(v % base)
		n++
		if v < base {
			break
		}
	}
	slices.Reverse(u[from:n])
	u[n] = ';'
	return n + 1
}

// Of returns what text, which is no value, looks like in the form.
func (f Form) Of(text string) string {
	b := make([]byte, f.size([]byte(text)))
	f.write(b, []byte(text))
	return string(b)
}

// Whole returns the placeholder of the form's secret in the form. In Base64
// it is padded so that what follows keeps its alignment.
func (f Form) Whole() string {
	p := f.Secret.Placeholder
	if f.way.kind == base64Letters {
		p = fit(p, len(p)+((f.Secret.Value.n-len(p))%3+3)%3)
	}
	return f.Of(p)
}

// Kept is Whole, cut or padded to the length of the form.
func (f Form) Kept() string {
	p := fit(f.Secret.Placeholder, f.Secret.Value.n)
	if f.way.kind == base64Letters {
		return f.Of(p)
	}
	var b strings.Builder
	for i := range len(p) {
		if part := f.Of(p[i : i+1]); b.Len()+len(part) <= f.Len {
			b.WriteString(part)
		} else {
			break
		}
	}
	for pad := f.Of("*"); b.Len()+len(pad) <= f.Len; {
		b.WriteString(pad)
	}
	return fit(b.String(), f.Len)
}

// fit cuts or pads p to n bytes.
func fit(p string, n int) string {
	if len(p) >= n {
		return p[:n]
	}
	return p + strings.Repeat("*", n-len(p))
}
