package websocket

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"unicode/utf8"
)

// flushSize is when a [Writer] no longer waits for more: one TLS record.
const flushSize = 16 << 10

// A Writer writes the frames of one side. Its methods may be called from
// several goroutines at once, but one alone may write messages.
type Writer struct {
	// Mask, if not nil, is told of each marker in a payload: how its frame is
	// masked, and where in the payload it stands. The marker is then written
	// as it is, and whatever it stands for is masked elsewhere.
	Mask func(marker string, key [4]byte, offset int) error

	dst    io.Writer
	masked bool

	mu     sync.Mutex
	buf    *[]byte // not yet written; nil = nothing
	open   bool    // a frame of the message has been written
	closed bool    // a Close frame has been
	err    error
}

// NewWriter writes frames to dst, masked as a client's or not.
func NewWriter(dst io.Writer, masked bool) *Writer { return &Writer{dst: dst, masked: masked} }

var errWriterClosed = errors.New("frame after a Close frame")

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, flushSize+bufferSize); return &b }}

// Data writes p as the next frame of a message, the last one if fin. op is
// the type of the message; markers are those that p holds, in order.
func (w *Writer) Data(op Opcode, fin bool, p []byte, markers []string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open {
		op = Continuation
	}
	if err := w.frame(op, fin, p, markers); err != nil {
		return err
	}
	w.open = !fin
	return nil
}

// Control writes a control frame. After a Close frame nothing is written any
// more.
func (w *Writer) Control(op Opcode, p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.frame(op, true, p, nil); err != nil {
		return err
	}
	w.closed = op == Close
	return nil
}

// Close writes a Close frame with code and reason, cut where it is too long.
// If there was one already it does nothing. Like any frame it may wait for
// Flush.
func (w *Writer) Close(code int, reason string) error {
	w.mu.Lock()
	closed := w.closed
	w.mu.Unlock()
	if closed {
		return nil
	}
	p := binary.BigEndian.AppendUint16(nil, uint16(code))
	for len(reason) > maxControl-2 || !utf8.ValidString(reason) {
		reason = reason[:len(reason)-1]
	}
	return w.Control(Close, append(p, reason...))
}

// Flush writes what waits for more.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flush()
}

func (w *Writer) flush() error {
	if w.buf == nil || w.err != nil {
		return w.err
	}
	_, w.err = w.dst.Write(*w.buf)
	clear(*w.buf)
	if cap(*w.buf) <= 2*flushSize {
		*w.buf = (*w.buf)[:0]
		buffers.Put(w.buf)
	}
	w.buf = nil
	return w.err
}

// frame appends a frame to buf. mu is held.
func (w *Writer) frame(op Opcode, fin bool, p []byte, markers []string) error {
	switch {
	case w.err != nil:
		return w.err
	case w.closed:
		return errWriterClosed
	}
	if w.buf == nil {
		w.buf = buffers.Get().(*[]byte)
	}
	h := header{fin: fin, op: op, length: uint64(len(p)), masked: w.masked}
	if w.masked {
		rand.Read(h.key[:]) // RFC 6455 §5.3: fresh and unpredictable for each frame
	}
	b := h.append(*w.buf)
	start := len(b)
	b = append(b, p...)
	if w.masked {
		if err := w.mask(b[start:], h.key, markers); err != nil {
			clear(b[start:])
			return err
		}
	}
	*w.buf = b
	if len(b) >= flushSize {
		return w.flush()
	}
	return nil
}

// mask masks p but for the markers.
func (w *Writer) mask(p []byte, key [4]byte, markers []string) error {
	at := 0
	for _, m := range markers {
		i := bytes.Index(p[at:], []byte(m))
		if i < 0 {
			return errors.New("a marker is not in its frame")
		}
		xor(p[at:at+i], key, at)
		at += i
		if err := w.Mask(m, key, at); err != nil {
			return err
		}
		at += len(m)
	}
	xor(p[at:], key, at)
	return nil
}
