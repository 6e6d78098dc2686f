package rewrite

import (
	"bytes"

	"github.com/cutoutdev/cutout/internal/secret"
)

// An xmlTracker follows XML as far as it matters to what may be written: in
// text and in attribute values entities are, in CDATA sections they are not,
// and in names, comments, instructions and declarations nothing is.
type xmlTracker struct {
	state xmlState
	seen  []byte // of what began with <, until it is known; then its end
}

type xmlState uint8

const (
	xmlContent xmlState = iota
	xmlBegin            // after <
	xmlTag
	xmlDouble // an attribute value
	xmlSingle
	xmlCDATA
	xmlComment
	xmlInstruction
	xmlDeclaration // to the end of the body: what it declares is not followed
)

const cdataBegin = "![CDATA["

func (t *xmlTracker) write(p []byte) {
	for len(p) > 0 {
		if skip := bytes.IndexByte(p, t.stop()); t.state != xmlTag && t.state != xmlBegin && len(t.seen) == 0 {
			if skip < 0 {
				return
			}
			p = p[skip:]
		}
		t.next(p[0])
		p = p[1:]
	}
}

// stop is the byte that may end the state, when nothing of its end was seen.
func (t *xmlTracker) stop() byte {
	switch t.state {
	case xmlDouble:
		return '"'
	case xmlSingle:
		return '\''
	case xmlCDATA:
		return ']'
	case xmlComment:
		return '-'
	case xmlInstruction:
		return '?'
	case xmlDeclaration:
		return 0 // XML has none
	}
	return '<'
}

func (t *xmlTracker) next(c byte) {
	switch t.state {
	case xmlContent:
		if c == '<' {
			t.state, t.seen = xmlBegin, t.seen[:0]
		}
	case xmlBegin:
		t.begin(c)
	case xmlTag:
		switch c {
		case '>':
			t.state = xmlContent
		case '"':
			t.state = xmlDouble
		case '\'':
			t.state = xmlSingle
		}
	case xmlDouble, xmlSingle:
		if c == t.stop() {
			t.state = xmlTag
		}
	case xmlCDATA:
		t.until(c, "]]>")
	case xmlComment:
		t.until(c, "-->")
	case xmlInstruction:
		t.until(c, "?>")
	}
}

// begin finds out what a < begins.
func (t *xmlTracker) begin(c byte) {
	t.seen = append(t.seen, c)
	switch s := string(t.seen); {
	case s == "?":
		t.state, t.seen = xmlInstruction, t.seen[:0]
	case s == "!--":
		t.state, t.seen = xmlComment, t.seen[:0]
	case s == cdataBegin:
		t.state, t.seen = xmlCDATA, t.seen[:0]
	case s == "!" || s == "!-" || len(s) < len(cdataBegin) && s == cdataBegin[:len(s)]:
	case s[0] == '!':
		t.state, t.seen = xmlDeclaration, t.seen[:0]
	default:
		t.state, t.seen = xmlTag, t.seen[:0]
		t.next(c)
	}
}

// until ends the state after end, whose first bytes t.seen keeps.
func (t *xmlTracker) until(c byte, end string) {
	t.seen = append(t.seen, c)
	if string(t.seen) == end {
		t.state, t.seen = xmlContent, t.seen[:0]
		return
	}
	for len(t.seen) > 0 && string(t.seen) != end[:len(t.seen)] {
		t.seen = t.seen[:copy(t.seen, t.seen[1:])]
	}
}

// in: no part of XML can be named.
func (t *xmlTracker) in(secret.BodyPart) (in, sane bool) { return false, true }

// encoding returns how a value is written in the place of text, which begins
// here. It does not fit if text is more than text.
func (t *xmlTracker) encoding(text []byte) (enc secret.Encoding, fits bool) {
	switch t.state {
	case xmlContent, xmlDouble, xmlSingle:
		// A placeholder with angle brackets or quotes of its own is markup.
		return secret.XML, !bytes.ContainsAny(text, `<>"'`)
	case xmlCDATA:
		return secret.Bare, !bytes.ContainsAny(text, `>`)
	}
	return 0, false
}
