package secret

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

// messages follow the HTTP/1 requests that net/http's client writes. A head
// is written once it is complete, its markers swapped; a body goes on as it
// is but for the places of its [Body].
type messages struct {
	seal  *Seal
	state state
	head  []byte // so far
	line  []byte // of the chunked coding, so far
	left  int64  // of the body or chunk
	body  *Body  // nil if it has no markers
	out   []byte // to be written
}

// A state is what the next byte belongs to.
type state uint8

const (
	inHead state = iota
	inBody
	inSize  // of a chunk
	inChunk // its data
	inGap   // the line end after it
	inTrailer
)

// maxHead bounds a head; the re-framer lets through far less.
const maxHead = 1 << 20

// maxLine bounds a trailer line.
const maxLine = maxHead

var errMessage = errors.New("malformed HTTP/1 request from the client")

// write takes the next bytes of the client.
func (m *messages) write(p []byte) error {
	m.out = m.out[:0]
	for len(p) > 0 {
		if m.state == inHead {
			n, err := m.collect(p)
			if err != nil {
				return err
			}
			p = p[n:]
			continue
		}
		n, err := m.follow(p, len(m.out))
		if err != nil {
			return err
		}
		if n == len(p) && len(m.out) == 0 {
			return m.seal.emit(p)
		}
		m.out = append(m.out, p[:n]...)
		p = p[n:]
	}
	return m.seal.emit(m.out)
}

// collect takes bytes of a head and appends it to out when it is complete.
func (m *messages) collect(p []byte) (int, error) {
	seen := max(0, len(m.head)-3)
	before := len(m.head)
	m.head = append(m.head, p...)
	end := bytes.Index(m.head[seen:], []byte("\r\n\r\n"))
	if end < 0 {
		if len(m.head) > maxHead {
			return 0, errMessage
		}
		return len(p), nil
	}
	end += seen + 4
	head := m.head[:end]
	m.head = m.head[:0]
	if err := m.begin(head); err != nil {
		return 0, err
	}
	return end - before, nil
}

// begin reads the framing of a complete head and appends it to out, without
// the field of a [Body].
func (m *messages) begin(head []byte) error {
	m.body, m.left = nil, -1
	chunked := false
	from := len(m.out)
	for i := 0; len(head) > 0; i++ {
		n := bytes.IndexByte(head, '\n') + 1
		line := head[:n]
		head = head[n:]
		name, value, ok := bytes.Cut(line[:n-2], []byte(": "))
		switch {
		case i == 0 || !ok:
		case isField(name, "Content-Length"):
			n, err := strconv.ParseInt(string(value), 10, 64)
			if err != nil || n < 0 || m.left >= 0 {
				return errMessage
			}
			m.left = n
		case isField(name, "Transfer-Encoding"):
			if string(value) != "chunked" || chunked {
				return errMessage
			}
			chunked = true
		case isField(name, m.seal.field):
			if m.body != nil {
				return errMessage
			}
			if m.body = m.seal.claim(string(value)); m.body == nil {
				return errMessage
			}
			continue
		}
		m.out = append(m.out, line...)
	}
	switch {
	case chunked && m.left >= 0:
		return errMessage
	case chunked:
		m.state = inSize
	case m.left > 0:
		m.state = inBody
	}
	_, err := m.seal.find(m.out[from:], from, true)
	return err
}

func isField(name []byte, want string) bool {
	return len(name) == len(want) && strings.EqualFold(string(name), want)
}

// follow takes bytes of a body, up to its end, and returns how many. base is
// where they will stand in what is written.
func (m *messages) follow(p []byte, base int) (int, error) {
	at := 0
	for at < len(p) && m.state != inHead {
		if m.state != inBody && m.state != inChunk {
			n, err := m.control(p[at:])
			if err != nil {
				return 0, err
			}
			at += n
			continue
		}
		n := int(min(int64(len(p)-at), m.left))
		m.left -= int64(n)
		if m.body != nil {
			end := m.left == 0 && m.state == inBody
			if err := m.body.pass(p[at:at+n], base+at, end); err != nil {
				return 0, err
			}
		}
		at += n
		if m.left == 0 {
			if m.state == inBody {
				m.state = inHead
			} else {
				m.state = inGap
			}
		}
	}
	return at, nil
}

// control takes bytes of a line of the chunked coding.
func (m *messages) control(p []byte) (int, error) {
	n := bytes.IndexByte(p, '\n') + 1
	if n == 0 {
		if m.line = append(m.line, p...); len(m.line) > maxLine {
			return 0, errMessage
		}
		return len(p), nil
	}
	line := append(m.line, p[:n]...)
	m.line = line[:0]
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok {
		return 0, errMessage
	}
	switch m.state {
	case inGap:
		if len(text) > 0 {
			return 0, errMessage
		}
		m.state = inSize
	case inTrailer:
		if len(text) == 0 {
			m.state = inHead
		}
	default:
		size, err := strconv.ParseUint(string(text), 16, 62)
		if err != nil {
			return 0, errMessage
		}
		m.left, m.state = int64(size), inChunk
		if size == 0 {
			m.state = inTrailer
			if m.body != nil {
				return n, m.body.pass(nil, 0, true)
			}
		}
	}
	return n, nil
}
