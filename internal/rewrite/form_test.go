package rewrite

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"html"
	"net/url"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/cutoutdev/cutout/internal/secret"
)

// A speller writes text as some encoder does.
type speller struct {
	name  string
	spell func(text string) string
	undo  func(text string) string // of what has letters of what stands around it
}

func jsonString(text string, escapeHTML bool) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(escapeHTML)
	e.Encode(text)
	return strings.TrimSuffix(b.String(), "\n")
}

func wrapped(enc *base64.Encoding, size int, brk string) func(string) string {
	return func(text string) string {
		// The text stands in the middle of a file.
		all := enc.EncodeToString([]byte("some words before it, " + text + "; and after"))
		var lines []string
		for ; len(all) > size; all = all[size:] {
			lines = append(lines, all[:size])
		}
		return strings.Join(append(lines, all), brk)
	}
}

func eachByte(format string) func(string) string {
	return func(text string) string {
		var b strings.Builder
		for i := range len(text) {
			fmt.Fprintf(&b, format, text[i])
		}
		return b.String()
	}
}

// unwrapped decodes a file of Base64 between brackets.
func unwrapped(text string) string {
	lines := strings.NewReplacer(`\r`, "", `\n`, "", "\r", "", "\n", "", "[", "", "]", "")
	plain, err := base64.StdEncoding.DecodeString(lines.Replace(text))
	if err != nil {
		return err.Error() + " in " + text
	}
	return string(plain)
}

func eachUnit(format string) func(string) string {
	return func(text string) string {
		var b strings.Builder
		for _, u := range utf16.Encode([]rune(text)) {
			fmt.Fprintf(&b, format, u)
		}
		return b.String()
	}
}

func eachRune(format string) func(string) string {
	return func(text string) string {
		var b strings.Builder
		for _, r := range text {
			fmt.Fprintf(&b, format, r)
		}
		return b.String()
	}
}

var spellers = []speller{
	{"raw", strings.Clone, nil},
	{"QueryEscape", url.QueryEscape, nil},
	{"PathEscape", url.PathEscape, nil},
	{"url.Values", func(s string) string { return url.Values{"k": {s}}.Encode() }, nil},
	{"url.URL", func(s string) string { return (&url.URL{Path: "/" + s}).EscapedPath() }, nil},
	{"json.Marshal", func(s string) string { return jsonString(s, true) }, nil},
	{"json without HTML", func(s string) string { return jsonString(s, false) }, nil},
	{"json slashes", func(s string) string { return strings.ReplaceAll(jsonString(s, false), "/", `\/`) }, nil},
	{"html.EscapeString", html.EscapeString, nil},
	{"xml.EscapeText", func(s string) string {
		var b bytes.Buffer
		xml.EscapeText(&b, []byte(s))
		return b.String()
	}, nil},
	{"html &quot; &apos;", strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&apos;").Replace, nil},
	{"html as Python", strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#x27;").Replace, nil},
	{"hex", func(s string) string { return hex.EncodeToString([]byte(s)) }, nil},
	{"HEX", eachByte("%02X"), nil},
	{"%41", eachByte("%%%02X"), nil},
	{"%4a", eachByte("%%%02x"), nil},
	{`\u0041`, eachUnit(`\u%04X`), nil},
	{`\u004a`, eachUnit(`\u%04x`), nil},
	{"&#65;", eachRune("&#%d;"), nil},
	{"&#x4A;", eachRune("&#x%X;"), nil},
	{"&#x4a;", eachRune("&#x%x;"), nil},
	{"base64 std", func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }, nil},
	{"base64 std +1", func(s string) string { return base64.StdEncoding.EncodeToString([]byte(":" + s)) }, nil},
	{"base64 std +2", func(s string) string { return base64.StdEncoding.EncodeToString([]byte("u:" + s + "\n")) }, nil},
	{"base64 url", func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }, nil},
	{"base64 url +1", func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(":" + s)) }, nil},
	{"base64 64 LF", wrapped(base64.StdEncoding, 64, "\n"), unwrapped},
	{"base64 64 CRLF", wrapped(base64.StdEncoding, 64, "\r\n"), unwrapped},
	{"base64 76 LF", wrapped(base64.StdEncoding, 76, "\n"), unwrapped},
	{"base64 76 CRLF", wrapped(base64.StdEncoding, 76, "\r\n"), unwrapped},
	{"base64 in JSON", wrapped(base64.StdEncoding, 64, `\n`), unwrapped},
	{"base64 in JSON CRLF", wrapped(base64.StdEncoding, 76, `\r\n`), unwrapped},
}

// spelled are values that encoders write in many ways. None is part of what
// stands around it.
var spelled = []string{
	`a"b&c<d>e/f+g%h'i=j` + "\u00e4\u20ac k",
	"sk_live_51HxQ2eT0aZ9vB7yU4nM8cR6wD3kL1pJ5sG",
	"\U0001f511>>>???~~~&&&\"\"\"''' //++%%" + `\\`,
}

// leaks returns 8 bytes in a row of spelling that are in got, and are no
// part of the same text with the placeholder in the value's place.
func leaks(got, spelling, around string) string {
	for i := 0; i+8 <= len(spelling); i++ {
		if part := spelling[i : i+8]; strings.Contains(got, part) && !strings.Contains(around, part) {
			return part
		}
	}
	return ""
}

// TestScrubForms: whatever encoder wrote the value and wherever the stream is
// cut, it is found and a placeholder stands there.
func TestScrubForms(t *testing.T) {
	for _, value := range spelled {
		s, list := newScrubber(t, value)
		for _, sp := range spellers {
			t.Run(sp.name, func(t *testing.T) {
				spelling := sp.spell(value)
				text := "[" + spelling + "]"
				// What an equal text without the value has in common with it.
				around := sp.spell(strings.Repeat("*", len(value))) + sp.spell("$MSB_KEY_A"+strings.Repeat("*", len(value)))
				left := func(got string) string {
					if sp.undo != nil {
						return leaks(sp.undo(got), value, "")
					}
					return leaks(got, spelling, around)
				}
				for _, keep := range []bool{false, true} {
					whole := ""
					for cut := range len(text) {
						hits := 0
						r := s.Reader(&slicer{text: text, sizes: []byte{byte(max(cut, 1) - 1), 255}}, keep, func(x *secret.Secret) {
							if hits++; x != list[0] {
								t.Errorf("hit of %v", x)
							}
						})
						got, err := readAll(r, nil)
						if err != nil || hits != 1 {
							t.Fatalf("cut at %d: %d hits, %v in %q", cut, hits, err, text)
						}
						if cut == 0 {
							whole = got
						}
						if got != whole {
							t.Fatalf("cut at %d: %q, else %q", cut, got, whole)
						}
					}
					if keep && len(whole) != len(text) {
						t.Errorf("%d bytes became %d", len(text), len(whole))
					}
					if part := left(whole); part != "" {
						t.Errorf("%q of %q is left in %q", part, text, whole)
					}
				}
				if got, n := s.String(text, nil); n != 1 || left(got) != "" {
					t.Errorf("String gives %q with %d hits", got, n)
				}
			})
		}
	}
}

// TestScrubWrappedAnywhere: Base64 is found wherever its line breaks are.
func TestScrubWrappedAnywhere(t *testing.T) {
	value := strings.Repeat(spelled[1], 2)
	s, _ := newScrubber(t, value)
	for before := range 80 {
		letters := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("-", before) + value + "---"))
		for _, brk := range []string{"\n", "\r\n", `\n`, `\r\n`} {
			var lines []string
			for rest := letters; rest != ""; rest = rest[min(64, len(rest)):] {
				lines = append(lines, rest[:min(64, len(rest))])
			}
			text := strings.Join(lines, brk)
			for _, keep := range []bool{false, true} {
				got, err := readAll(s.Reader(&slicer{text: text, sizes: []byte{byte(before), 6}}, keep, nil), nil)
				plain := unwrapped(got)
				if err != nil || !strings.HasSuffix(plain, "--") || len(got) != len(text) && keep {
					t.Fatalf("%d before, break %q: %v in %q", before, brk, err, got)
				}
				if part := leaks(plain, value, ""); part != "" {
					t.Errorf("%d before, break %q: %q is left in %q", before, brk, part, plain)
				}
			}
		}
	}
}

// TestScrubLiveLines: a line that ends with a letter is not held back for a
// wrapped needle's sake.
func TestScrubLiveLines(t *testing.T) {
	s, _ := newScrubber(t, spelled...)
	for c := byte(' '); c < 0x7f; c++ {
		line := "echo " + string(c) + "\n"
		r := s.Reader(&slicer{text: line + "more", sizes: []byte{byte(len(line) - 1)}}, false, nil)
		buf := make([]byte, 4096)
		if n, err := r.Read(buf); string(buf[:n]) != line || err != nil {
			t.Errorf("after %q read %q, %v", line, buf[:n], err)
		}
	}
}

// FuzzForms: the split of a stream of spellings, whole and cut off, makes no
// difference.
func FuzzForms(f *testing.F) {
	s, _ := newScrubber(f, spelled...)
	var needles []string
	for _, sp := range spellers {
		for _, v := range spelled {
			needles = append(needles, sp.spell(v))
		}
	}
	for i := range len(needles) / 32 {
		f.Add(uint8(32*i), "\x00 \x01\x02x\x03\x1f\x10,\x15\x16\x17\x33\x00", []byte{0, 7, 63}, []byte{0, 255}, i%2 == 0)
	}
	f.Add(uint8(80), "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0b\x2d\x00", []byte{}, []byte{1}, true)
	f.Fuzz(func(t *testing.T, from uint8, in string, sizes, rooms []byte, keep bool) {
		at := int(from) % len(needles)
		text := script(in, append(needles[at:len(needles):len(needles)], needles[:at]...))
		run := func(sizes, rooms []byte) (string, int) {
			hits := 0
			got, err := readAll(s.Reader(&slicer{text: text, sizes: sizes}, keep, func(*secret.Secret) { hits++ }), rooms)
			if err != nil {
				t.Fatal(err)
			}
			return got, hits
		}
		want, wantHits := run(nil, nil)
		if got, hits := run(sizes, rooms); got != want || hits != wantHits {
			t.Errorf("text %q: %d hits %q, in one piece %d hits %q", text, hits, got, wantHits, want)
		}
		for _, v := range spelled {
			if strings.Contains(want, v) {
				t.Errorf("a value is left in %q", want)
			}
		}
	})
}
