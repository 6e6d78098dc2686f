package rewrite

import (
	"mime"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/cutoutdev/cutout/internal/secret"
)

// A syntax is how text is written in a body.
type syntax uint8

const (
	opaque    syntax = iota // unknown: it may hold lengths
	plainText               // nothing is escaped
	quoted                  // values are often quoted, in ways that are not followed
	jsonText
	xmlText
	formText
	multipart
	encoded // text that was encoded as a whole: nothing in it is what it seems
)

// encoding is how a value is written.
func (s syntax) encoding() secret.Encoding {
	switch s {
	case quoted:
		return secret.Bare
	case jsonText:
		return secret.JSON
	case xmlText:
		return secret.XML
	case formText:
		return secret.Percent
	}
	return secret.Raw
}

// A kind is what a Content-Type says.
type kind struct {
	syntax   syntax
	media    string // in lower case, without parameters
	boundary string
}

// kinds are the media types whose syntax is known and has no inner lengths,
// beside text/*, and the types that end in +json, +xml and +yaml.
var kinds = map[string]syntax{
	"application/json":                  jsonText,
	"application/x-ndjson":              jsonText,
	"application/ndjson":                jsonText,
	"application/jsonl":                 jsonText,
	"application/json-seq":              jsonText,
	"text/json":                         jsonText,
	"application/graphql":               quoted, // block strings know no escapes
	"application/xml":                   xmlText,
	"text/xml":                          xmlText,
	"text/html":                         xmlText,
	"application/x-www-form-urlencoded": formText,
	"application/yaml":                  quoted,
	"application/x-yaml":                quoted,
	"text/yaml":                         quoted,
	"text/x-yaml":                       quoted,
	"text/csv":                          quoted,
	"text/tab-separated-values":         quoted,
	"text/javascript":                   quoted,
	"application/javascript":            quoted,
	"text/css":                          quoted,
}

// kindOf reads a Content-Type. What cannot be read is opaque.
func kindOf(contentType string) kind {
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return kind{}
	}
	k := kind{media: media}
	main, sub, _ := strings.Cut(media, "/")
	known, found := kinds[media]
	switch {
	case !utf8Based(params["charset"]):
		k.syntax = encoded
	case found:
		k.syntax = known
	case strings.HasSuffix(sub, "+json"):
		k.syntax = jsonText
	case strings.HasSuffix(sub, "+xml"):
		k.syntax = xmlText
	case strings.HasSuffix(sub, "+yaml"):
		k.syntax = quoted
	case main == "text":
		k.syntax = plainText
	case main == "multipart" && params["boundary"] != "":
		k.syntax, k.boundary = multipart, params["boundary"]
	}
	return k
}

// Elastic reports whether a text of a Content-Type may grow or shrink: nothing
// in its syntax can hold a length.
func Elastic(contentType string) bool {
	switch kindOf(contentType).syntax {
	case opaque, multipart, encoded:
		return false
	}
	return true
}

// utf8Based reports whether text in charset is UTF-8.
func utf8Based(charset string) bool {
	switch strings.ToLower(charset) {
	case "", "utf-8", "utf8", "us-ascii", "ascii":
		return true
	}
	return false
}

// unescape appends what the escape at the beginning of s stands for to dst
// and returns its length: 0 if more of it may come. What is no escape stands
// for itself.
type unescapeFunc func(dst, s []byte, final bool) ([]byte, int)

// escapes returns the byte that begins an escape, and how one is read; nil if
// there are none.
func (s syntax) escapes() (byte, unescapeFunc) {
	switch s {
	case jsonText:
		return '\\', unescapeJSON
	case formText:
		return '%', unescapePercent
	case xmlText:
		return '&', unescapeEntity
	}
	return 0, nil
}

// simple are the escapes of one letter, RFC 8259 §7.
var simple = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// unescapeJSON appends what the escape at the beginning of s stands for and
// returns its length; 0 if s does not hold all of it. What is no escape
// stands for itself.
func unescapeJSON(dst, s []byte, final bool) ([]byte, int) {
	switch {
	case len(s) == 1 && !final:
		return dst, 0
	case len(s) > 1 && simple[s[1]] != 0:
		return append(dst, simple[s[1]]), 2
	}
	c, n := unit(s, final)
	switch {
	case n == 0:
		return dst, 0
	case n < 0:
		return append(dst, s[0]), 1
	case !utf16.IsSurrogate(c):
		return utf8.AppendRune(dst, c), n
	}
	low, m := unit(s[n:], final)
	if m == 0 {
		return dst, 0
	}
	if pair := utf16.DecodeRune(c, low); m > 0 && pair != utf8.RuneError {
		return utf8.AppendRune(dst, pair), n + m
	}
	return utf8.AppendRune(dst, utf8.RuneError), n
}

// unit reads \uXXXX at the beginning of s: its length is 6, -1 if that is not
// there, or 0 if it may come.
func unit(s []byte, final bool) (rune, int) {
	var c rune
	for i := range 6 {
		if i == len(s) {
			if final {
				return 0, -1
			}
			return 0, 0
		}
		digit, ok := unhex(s[i])
		switch {
		case i == 0 && s[i] != '\\', i == 1 && s[i] != 'u', i > 1 && !ok:
			return 0, -1
		case i > 1:
			c = c<<4 | rune(digit)
		}
	}
	return c, 6
}

func unescapePercent(dst, s []byte, final bool) ([]byte, int) {
	if len(s) < 3 {
		for _, c := range s[1:] {
			if _, ok := unhex(c); !ok {
				return append(dst, s[0]), 1
			}
		}
		if !final {
			return dst, 0
		}
		return append(dst, s[0]), 1
	}
	hi, ok1 := unhex(s[1])
	lo, ok2 := unhex(s[2])
	if !ok1 || !ok2 {
		return append(dst, s[0]), 1
	}
	return append(dst, hi<<4|lo), 3
}

// maxEntity is the longest reference that is read: zeros before a number may
// go on for ever.
const maxEntity = 32

// entities are the names of characters that a placeholder may hold, XML 1.0
// §4.6 and HTML.
var entities = map[string]byte{
	"amp": '&', "lt": '<', "gt": '>', "quot": '"', "apos": '\'',
	"dollar": '$', "lowbar": '_', "hyphen": '-', "period": '.', "colon": ':', "sol": '/', "bsol": '\\',
	"plus": '+', "equals": '=', "percnt": '%', "num": '#', "commat": '@', "ast": '*', "excl": '!', "quest": '?',
	"lpar": '(', "rpar": ')', "lsqb": '[', "lbrack": '[', "rsqb": ']', "rbrack": ']', "lcub": '{', "lbrace": '{',
	"rcub": '}', "rbrace": '}', "verbar": '|', "vert": '|', "Hat": '^', "grave": '`', "semi": ';', "comma": ',',
	"UnderBar": '_', "midast": '*', "DiacriticalGrave": '`', "VerticalLine": '|', "AMP": '&', "LT": '<', "GT": '>', "QUOT": '"',
}

// unescapeEntity reads &#N; &#xH; and the names of ASCII characters. Others
// stand for what no placeholder holds.
func unescapeEntity(dst, s []byte, final bool) ([]byte, int) {
	end := 1
	for end < len(s) && end < maxEntity && entityByte(s[end]) {
		end++
	}
	switch {
	case end == len(s) && end < maxEntity && !final:
		return dst, 0
	case end == len(s) || s[end] != ';':
		return append(dst, s[0]), 1
	}
	if c, ok := entity(string(s[1:end])); ok {
		return append(dst, c), end + 1
	}
	return append(dst, s[0]), 1
}

func entityByte(c byte) bool {
	return c == '#' || 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9'
}

func entity(name string) (byte, bool) {
	number, isNumber := strings.CutPrefix(name, "#")
	if !isNumber {
		c, ok := entities[name]
		return c, ok
	}
	base := 10
	if len(number) > 1 && number[0]|0x20 == 'x' {
		number, base = number[1:], 16
	}
	n := 0
	for _, c := range []byte(number) {
		d, ok := unhex(c)
		if !ok || int(d) >= base {
			return 0, false
		}
		if n = n*base + int(d); n > 0x7f {
			return 0, false
		}
	}
	return byte(n), number != ""
}
