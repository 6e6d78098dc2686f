package rewrite

import (
	"bufio"
	"bytes"
	"mime"
	"net/textproto"
	"strings"
)

// Bounds of a part's head. Go's own reader takes 16 KiB as the most for one
// line; no client comes near.
const (
	maxPartHead  = 16 << 10
	maxDelimiter = 1 << 10 // white space after a boundary
)

// sections rewrites a multipart body, RFC 2046 §5.1, each part in its own
// syntax. Heads, preamble and epilogue are searched and pass as they are.
type sections struct {
	w         *writer
	delimiter []byte // with the line break before it
	state     partState
	exact     bool  // of the body as a whole
	aside     *text // what is no part
	part      *text
	held      []byte
	skip      int // bytes at the beginning of held that nobody has sent
}

type partState uint8

const (
	inPreamble partState = iota
	inPart
	afterDelimiter
	inPartHead
	inEpilogue
)

func newSections(w *writer, k kind) *sections {
	p := &sections{w: w, delimiter: []byte("\r\n--" + k.boundary), exact: w.b.SameLength}
	p.aside = newText(w, kind{syntax: encoded}, true)
	// The first delimiter may begin the body.
	p.held, p.skip = []byte("\r\n"), 2
	return p
}

func (p *sections) feed(dst, in []byte, final bool) ([]byte, error) {
	p.held = append(p.held, in...)
	rest := p.held
	for {
		var more bool
		var err error
		if dst, rest, more, err = p.step(dst, rest, final); err != nil {
			return dst, err
		}
		if !more {
			p.held = p.held[:copy(p.held, rest)]
			return dst, nil
		}
	}
}

// step takes what it can of in, and reports whether there may be more to take.
func (p *sections) step(dst, in []byte, final bool) (out, rest []byte, more bool, err error) {
	switch p.state {
	case inPreamble, inPart:
		return p.content(dst, in, final)
	case afterDelimiter:
		end := bytes.Index(in, []byte("\r\n"))
		switch {
		case bytes.HasPrefix(in, []byte("--")):
			p.state = inEpilogue
			return dst, in, true, nil
		case end >= 0 && len(bytes.Trim(in[:end], " \t")) == 0:
			p.state = inPartHead
			// Kept, so that a head without fields ends in two line breaks.
			dst, err = p.aside.feed(dst, in[:end], true)
			return dst, in[end:], true, err
		case end < 0 && !final && len(in) < maxDelimiter && len(bytes.Trim(in, " \t\r-")) == 0:
			return dst, in, false, nil
		}
		// Not a delimiter after all: nobody can say how it will be read.
		p.state = inEpilogue
		return dst, in, true, nil
	case inPartHead:
		end := bytes.Index(in, []byte("\r\n\r\n"))
		if end < 0 && !final && len(in) < maxPartHead {
			return dst, in, false, nil
		}
		if end < 0 || end > maxPartHead {
			p.state = inEpilogue
			return dst, in, true, nil
		}
		dst, err = p.aside.feed(dst, in[:end+4], true)
		p.part, p.state = p.begin(in[:end+4]), inPart
		return dst, in[end+4:], true, err
	}
	dst, err = p.aside.feed(dst, in, final)
	return dst, nil, false, err
}

// content passes bytes on up to the next delimiter.
func (p *sections) content(dst, in []byte, final bool) (out, rest []byte, more bool, err error) {
	to := p.aside
	if p.state == inPart {
		to = p.part
	}
	i := bytes.Index(in, p.delimiter[1:])
	if i >= 0 && (i == 0 || in[i-1] != '\r') {
		// Some readers take it for a delimiter.
		p.state = inEpilogue
		dst, err = to.feed(dst, in[min(p.skip, i):i], true)
		p.skip = 0
		return dst, in[i:], err == nil, err
	}
	i-- // the line break; -2 if there is none
	end := i
	if i < 0 {
		end = len(in)
		if !final {
			end -= max(overlap(in, p.delimiter), overlap(in, p.delimiter[1:]))
		}
	}
	skip := min(p.skip, end)
	p.skip -= skip
	dst, err = to.feed(dst, in[skip:end], final || i >= 0)
	if i < 0 || err != nil {
		return dst, in[end:], false, err
	}
	p.state = afterDelimiter
	end += len(p.delimiter)
	dst = append(dst, in[i+p.skip:end]...)
	p.skip = 0
	return dst, in[end:], true, nil
}

// begin reads the head of a part, which has a line break before it.
func (p *sections) begin(head []byte) *text {
	fields, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(bytes.TrimPrefix(head, []byte("\r\n"))))).ReadMIMEHeader()
	one := func(name string) string {
		if len(fields[name]) != 1 {
			return ""
		}
		return fields[name][0]
	}
	k := kind{syntax: plainText, media: "text/plain"} // RFC 2046 §5.1
	if fields["Content-Type"] != nil {
		k = kindOf(one("Content-Type"))
	}
	switch strings.ToLower(one("Content-Transfer-Encoding")) {
	case "7bit", "8bit", "binary":
	default:
		if fields["Content-Transfer-Encoding"] != nil {
			k.syntax = encoded
		}
	}
	lines := bytes.Count(head, []byte("\n"))
	if err != nil || fields["Content-Encoding"] != nil || bytes.Count(head, []byte("\r\n")) != lines {
		k.syntax = encoded
	}
	t := newText(p.w, k, p.exact || fields["Content-Length"] != nil)
	if disposition, params, err := mime.ParseMediaType(one("Content-Disposition")); err == nil && disposition == "form-data" {
		t.field = params["name"]
	}
	return t
}

// overlap returns how many bytes at the end of text begin p.
func overlap(text, p []byte) int {
	for n := min(len(p)-1, len(text)); n > 0; n-- {
		if bytes.HasSuffix(text, p[:n]) {
			return n
		}
	}
	return 0
}
