package helper

import (
	"encoding/base64"
	"encoding/hex"
	"html"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/cutoutdev/cutout/internal/source"
)

// A Text is something that Cutout would put into the guest, its state or an
// argument list, with the words by which the user knows it.
type Text struct {
	Where string `json:"where"` // "the command", "-e FOO"
	Text  string `json:"text"`
}

// checkTexts refuses texts that hold a value in a form that a shell or a
// script could have made of it: raw in any case, with any characters escaped
// as in URLs, JSON or HTML, in hex, or in Base64 at its three alignments in
// both alphabets, which finds base64(user:value) too. The error names secret
// and place, never the text.
func checkTexts(name string, value []byte, texts []Text) error {
	folded := strings.ToLower(string(value))
	digits, cores := hex.EncodeToString(value), coresOf(string(value))
	for _, t := range texts {
		for _, reading := range readings(t.Text) {
			lower := strings.ToLower(reading)
			if strings.Contains(lower, folded) || strings.Contains(lower, digits) || containsAny(withoutSpace(reading), cores) {
				return source.Errorf(hintFor(t.Where), "the value of %s stands in %s", name, t.Where)
			}
		}
	}
	return nil
}

func hintFor(where string) string {
	if strings.HasPrefix(where, "--") {
		return "a flag takes the name of a secret, never its value"
	}
	return "your shell expanded it before Cutout saw it: use single quotes, so that the guest's shell expands the placeholder"
}

// readings returns what stands in text once the escapes of one syntax are
// undone, whichever characters are escaped.
func readings(text string) []string {
	out := []string{text}
	add := func(s string) {
		if s != text {
			out = append(out, s)
		}
	}
	if strings.Contains(text, "&") {
		add(html.UnescapeString(text))
	}
	if strings.Contains(text, `\`) {
		add(unescapeJSON(text))
	}
	if strings.ContainsAny(text, "%+") {
		plain := unescapePercent(text)
		add(plain)
		add(unescapePercent(strings.ReplaceAll(text, "+", " "))) // as in forms
	}
	return out
}

// unescapePercent decodes the valid escapes of text, RFC 3986 §2.1.
func unescapePercent(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			if c, err := strconv.ParseUint(text[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// unescapeJSON decodes the valid escapes of text, RFC 8259 §7.
func unescapeJSON(text string) string {
	const short = "\"\\/bfnrt"
	const means = "\"\\/\b\f\n\r\t"
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		if at := strings.IndexByte(short, text[i+1]); at >= 0 {
			b.WriteByte(means[at])
			i++
			continue
		}
		r, ok := codeUnit(text[i:])
		if !ok {
			b.WriteByte(text[i])
			continue
		}
		i += 5
		if low, ok := codeUnit(text[i+1:]); ok && utf16.IsSurrogate(r) {
			r = utf16.DecodeRune(r, low)
			i += 6
		}
		b.WriteRune(r)
	}
	return b.String()
}

// codeUnit reads the \uXXXX that text begins with.
func codeUnit(text string) (rune, bool) {
	if len(text) < 6 || text[:2] != `\u` {
		return 0, false
	}
	n, err := strconv.ParseUint(text[2:6], 16, 16)
	return rune(n), err == nil
}

// withoutSpace undoes the line breaks of Base64 tools.
func withoutSpace(text string) string {
	if !strings.ContainsAny(text, " \t\r\n") {
		return text
	}
	return strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "").Replace(text)
}

// coresOf lists the Base64 texts that v is in, whatever surrounds it.
func coresOf(v string) []string {
	var out []string
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 {
			if core := alignedBase64(enc, v, shift); len(core) >= minCore {
				out = append(out, core)
			}
		}
	}
	return out
}

func containsAny(text string, parts []string) bool {
	for _, p := range parts {
		if strings.Contains(text, p) {
			return true
		}
	}
	return false
}

// minCore is the least Base64 text that is evidence of a value and not of
// chance: 8 characters are 48 bits.
const minCore = 8

// alignedBase64 encodes v as it appears shift bytes into a longer text,
// without the characters that depend on its neighbours.
func alignedBase64(enc *base64.Encoding, v string, shift int) string {
	text := enc.EncodeToString([]byte(strings.Repeat("\x00", shift) + v))
	first := (shift*8 + 5) / 6 // the first character that v alone determines
	last := (shift + len(v)) * 8 / 6
	return text[first:last]
}
