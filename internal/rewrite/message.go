package rewrite

import (
	"bytes"
	"errors"
	"io"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/cutoutdev/cutout/internal/secret"
)

// MaxMessageOccurrences is how many placeholders of one message become
// values: protocols that log in by message do so once.
const MaxMessageOccurrences = 16

// ErrTooMany is returned for a message with more of them.
var ErrTooMany = errors.New("too many placeholders in one message")

// A Message says what becomes of the placeholders in a text message.
type Message struct {
	// Swap reports whether this one becomes a value.
	Swap func(*secret.Secret) bool
	// Seal returns the marker for the value, which stands in a string of
	// JSON or else in plain text.
	Seal func(s *secret.Secret, json bool) (marker string, err error)
	// Found is told of one that stays as it is.
	Found func(*secret.Secret) error
}

// Message returns the text message r with markers in the place of
// placeholders. A message that begins with { or [, after white space, is
// taken for JSON: the escapes of its strings are seen through. All else is
// plain text.
//
// However r is split, the result is the same; only what could begin a
// placeholder is held back until more comes. An error of m ends the reader
// before the placeholder.
func (f *Finder) Message(r io.Reader, m Message) io.Reader {
	if len(f.secrets) == 0 {
		return r
	}
	return &messageReader{f: f, r: r, m: m}
}

// maxRoom is how much of a long message is read at once: one TLS record.
const maxRoom = 16 << 10

type messageReader struct {
	f *Finder
	r io.Reader
	m Message

	known, json bool // what kind of text it is
	swaps       int
	room        int    // for the next read
	text        []byte // is not decided
	plain       []byte // text without escapes, if it has any
	at          []int  // by byte of plain: where its unit begins in text
	out         []byte // is to be returned
	built       []byte // backs out
	err         error  // after out
}

func (r *messageReader) Read(p []byte) (int, error) {
	for {
		switch {
		case len(r.out) > 0:
			n := copy(p, r.out)
			r.out = r.out[n:]
			return n, nil
		case r.err != nil:
			return 0, r.err
		case len(p) == 0:
			return 0, nil
		}
		held := len(r.text)
		r.text = append(r.text, make([]byte, max(r.room, minRead))...)
		n, err := r.r.Read(r.text[held:])
		if n == len(r.text)-held && r.room < maxRoom {
			r.room = 2 * n // most messages are short
		}
		r.text = r.text[:held+n]
		r.out, r.err = r.built[:0], err
		if fault := r.take(err == io.EOF); fault != nil {
			r.err = fault
		}
		r.built = r.out
	}
}

// take moves what is decided of text to out.
func (r *messageReader) take(final bool) error {
	if !r.known {
		for _, c := range r.text {
			if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
				r.known, r.json = true, c == '{' || c == '['
				break
			}
		}
	}
	text, at := r.text, func(i int) int { return i }
	if r.json && bytes.IndexByte(text, '\\') >= 0 {
		r.unescape(final)
		text, at = r.plain, func(i int) int { return r.at[i] }
	}
	from := 0 // in r.text
	for base := 0; ; {
		h, safe, ok := r.f.exact.Next(text[base:], final)
		if !ok {
			end := at(base + safe)
			r.out = append(r.out, r.text[from:end]...)
			r.text = r.text[:copy(r.text, r.text[end:])]
			return nil
		}
		start, end := base+h.Start, base+h.End
		r.out = append(r.out, r.text[from:at(start)]...)
		// A placeholder that begins or ends within an escape cannot be cut out.
		whole := (start == 0 || at(start-1) != at(start)) && at(end-1) != at(end)
		if err := r.found(r.f.secrets[h.ID], r.text[at(start):at(end)], whole); err != nil {
			return err
		}
		base, from = end, at(end)
	}
}

// found appends a marker or the placeholder as it stands.
func (r *messageReader) found(s *secret.Secret, text []byte, whole bool) error {
	if !whole || s.Value.IsZero() || !r.m.Swap(s) {
		r.out = append(r.out, text...)
		return r.m.Found(s)
	}
	if r.swaps++; r.swaps > MaxMessageOccurrences {
		return ErrTooMany
	}
	marker, err := r.m.Seal(s, r.json)
	r.out = append(r.out, marker...)
	return err
}

// unescape makes plain and at, which ends with where text is not decoded yet:
// within an escape.
func (r *messageReader) unescape(final bool) {
	r.plain, r.at = r.plain[:0], r.at[:0]
	i := 0
	for i < len(r.text) {
		n := len(r.plain)
		used := 1
		if r.text[i] == '\\' {
			r.plain, used = unescapeJSON(r.plain, r.text[i:], final)
			if used == 0 {
				break
			}
		} else {
			r.plain = append(r.plain, r.text[i])
		}
		for range len(r.plain) - n {
			r.at = append(r.at, i)
		}
		i += used
	}
	r.at = append(r.at, i)
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
