package reframe

import (
	"bytes"
	"io"
)

// An input holds what was read from the guest and not yet handed on.
type input struct {
	buf     []byte
	r, w    int // buf[r:w] is unread
	scanned int // buf[r:r+scanned] holds no line end
}

// minBuffer is what an idle connection costs.
const minBuffer = 4 << 10

func (in *input) bytes() []byte { return in.buf[in.r:in.w] }
func (in *input) len() int      { return in.w - in.r }

func (in *input) skip(n int) {
	in.r += n
	in.scanned = 0
	if in.r == in.w {
		in.r, in.w = 0, 0
		if cap(in.buf) > minBuffer {
			in.buf = nil // a large head is over
		}
	}
}

// fill reads more from r behind what is there.
func (in *input) fill(r io.Reader) error {
	if in.w == len(in.buf) {
		in.room()
	}
	n, err := r.Read(in.buf[in.w:])
	in.w += n
	if n > 0 {
		return nil
	}
	return err
}

// room moves the unread bytes to the front, or to a larger buffer.
func (in *input) room() {
	to := in.buf
	if in.r == 0 {
		to = make([]byte, max(minBuffer, 2*len(in.buf)))
	}
	in.w = copy(to, in.bytes())
	in.buf, in.r = to, 0
}

// line returns the line at offset from of the unread bytes without its CR LF
// and the offset behind it, or next = 0 if its end has not come. A line holds
// no CR and no LF.
func (in *input) line(from int) (line []byte, next int, f Fault) {
	b := in.bytes()[from:]
	i := bytes.IndexByte(b[in.scanned:], '\n')
	if i < 0 {
		in.scanned = len(b)
		if len(b) > maxLine {
			return nil, 0, LineTooLong
		}
		return nil, 0, ""
	}
	i += in.scanned
	in.scanned = 0
	switch {
	case i > maxLine:
		return nil, 0, LineTooLong
	case i == 0 || bytes.IndexByte(b[:i], '\r') != i-1:
		return nil, 0, BadLineEnd
	}
	return b[:i-1], from + i + 1, ""
}
