package rewrite

import (
	"bytes"
	"io"
)

// MaxMessageOccurrences is how many placeholders of one message become
// values: protocols that log in by message do so once.
const MaxMessageOccurrences = 16

// Message is [Finder.Body] for a text message: every place in it is one where
// b.Swap may have a value, and its syntax is not told. One that begins with {
// or [, after white space, is taken for JSON, any other for plain text.
func (f *Finder) Message(r io.Reader, b Body) io.Reader {
	if len(f.secrets) == 0 {
		return r
	}
	return &bodyReader{r: r, s: &guess{w: &writer{f: f, b: b, most: MaxMessageOccurrences, anywhere: true}}}
}

// A guess is a text whose first letter tells its syntax.
type guess struct {
	w    *writer
	text *text // nil: nothing but white space has come
}

func (g *guess) feed(dst, p []byte, final bool) ([]byte, error) {
	if g.text == nil {
		rest := bytes.TrimLeft(p, " \t\r\n")
		if len(rest) == 0 {
			return append(dst, p...), nil // no placeholder begins so
		}
		k := kind{syntax: plainText}
		if rest[0] == '{' || rest[0] == '[' {
			k.syntax = jsonText
		}
		g.text = newText(g.w, k, false)
	}
	return g.text.feed(dst, p, final)
}
