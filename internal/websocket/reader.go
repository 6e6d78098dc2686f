package websocket

import (
	"io"
	"math"
)

// bufferSize is for the headers and payloads of small frames; those of large
// ones are read to where they are wanted.
const bufferSize = 4 << 10

// A Reader reads the messages of one side, one after the other. It is itself
// the reader of the current message's payload. Set the fields before use; it
// is for one goroutine.
type Reader struct {
	// Control is called for each control frame, where it stands between the
	// frames around it, a Close frame included. The payload is its own only
	// during the call. An error ends the reader.
	Control func(op Opcode, payload []byte) error
	// Idle, if not nil, is called before each read that may have to wait for
	// the peer. An error ends the reader.
	Idle func() error

	src    io.Reader
	masked bool
	err    error // final

	buf       [bufferSize]byte
	from, end int // unread part of buf

	frame   header
	left    uint64 // of the frame's payload
	at      int    // modulo 4, in the payload
	op      Opcode // of the message; 0 = none has begun
	done    bool   // the message's last frame has begun
	text    validator
	control [maxControl]byte
}

// NewReader reads what a client has sent, masked, or a server.
func NewReader(src io.Reader, masked bool) *Reader { return &Reader{src: src, masked: masked} }

// Next goes to the next message and returns its type, Text or Binary. The message
// before must have been read to its end. It fails with [ErrClosed] after a Close frame, with an [*Error]
// after a fault of the peer, and with [io.ErrUnexpectedEOF] where the
// connection ends without a word.
func (r *Reader) Next() (Opcode, error) {
	if r.err == nil && r.op != 0 && !r.Ended() {
		panic("websocket: message was not read to its end")
	}
	r.op, r.done, r.text = 0, false, validator{}
	if err := r.data(); err != nil {
		return 0, err
	}
	return r.op, nil
}

// Ended reports whether all of the message is there: reading on to its end
// does not wait.
func (r *Reader) Ended() bool { return r.done && r.left == 0 }

// Read reads of the message's payload. At its end it returns 0 and io.EOF.
func (r *Reader) Read(p []byte) (int, error) {
	for {
		switch {
		case r.err != nil:
			return 0, r.err
		case len(p) == 0:
			return 0, nil
		case r.left > 0:
			return r.payload(p)
		case r.done:
			return 0, io.EOF
		}
		if err := r.data(); err != nil {
			return 0, err
		}
	}
}

// payload reads of the current frame, of which something is left.
func (r *Reader) payload(p []byte) (int, error) {
	if r.left < uint64(len(p)) {
		p = p[:r.left]
	}
	n := 0
	if r.from == r.end && len(p) >= bufferSize {
		var err error
		if n, err = r.read(p); err != nil {
			return 0, err
		}
	} else {
		if r.from == r.end {
			if err := r.fill(); err != nil {
				return 0, err
			}
		}
		n = copy(p, r.buf[r.from:r.end])
		r.from += n
	}
	r.unmask(p[:n])
	if r.op == Text && (!r.text.add(p[:n]) || r.Ended() && !r.text.complete()) {
		clear(p[:n])
		return 0, r.fail(&Error{InvalidText, "a text message is not UTF-8"})
	}
	return n, nil
}

func (r *Reader) unmask(p []byte) {
	if r.masked {
		xor(p, r.frame.key, r.at)
	}
	r.at = (r.at + len(p)) & 3
	r.left -= uint64(len(p))
}

// data goes to the next frame of a message, past control frames.
func (r *Reader) data() error {
	for {
		if err := r.header(); err != nil {
			return err
		}
		h := r.frame
		switch {
		case h.op.control():
			if err := r.controlFrame(); err != nil {
				return err
			}
			continue
		case h.op == Continuation && r.op == 0:
			return r.fail(fault("a continuation of no message"))
		case h.op != Continuation && r.op != 0:
			return r.fail(fault("a message within a message"))
		case h.op != Continuation:
			r.op = h.op
		}
		r.done = h.fin
		if r.Ended() && !r.text.complete() {
			return r.fail(&Error{InvalidText, "a text message is not UTF-8"})
		}
		return nil
	}
}

// header reads the header of the next frame.
func (r *Reader) header() error {
	if r.err != nil {
		return r.err
	}
	for {
		h, n, err := parseHeader(r.buf[r.from:r.end], r.masked)
		if err != nil {
			return r.fail(err)
		}
		if n > 0 {
			r.from += n
			r.frame, r.left, r.at = h, h.length, 0
			return nil
		}
		if err := r.fill(); err != nil {
			return err
		}
	}
}

// controlFrame reads the payload of a control frame and hands it on.
func (r *Reader) controlFrame() error {
	p := r.control[:r.left]
	for n := 0; n < len(p); {
		if r.from == r.end {
			if err := r.fill(); err != nil {
				return err
			}
		}
		m := copy(p[n:], r.buf[r.from:r.end])
		r.from += m
		r.unmask(p[n : n+m])
		n += m
	}
	closing := r.frame.op == Close
	if closing {
		if err := validClose(p); err != nil {
			return r.fail(err)
		}
	}
	if err := r.Control(r.frame.op, p); err != nil {
		return r.fail(err)
	}
	if closing {
		return r.fail(ErrClosed)
	}
	return nil
}

// fill reads more into buf, which has room: at most a part of a header is
// unread there.
func (r *Reader) fill() error {
	r.end = copy(r.buf[:], r.buf[r.from:r.end])
	r.from = 0
	n, err := r.read(r.buf[r.end:])
	r.end += n
	return err
}

// read returns at least one byte or an error.
func (r *Reader) read(p []byte) (int, error) {
	if r.Idle != nil {
		if err := r.Idle(); err != nil {
			return 0, r.fail(err)
		}
	}
	for range math.MaxInt8 {
		n, err := r.src.Read(p)
		switch {
		case n > 0:
			return n, nil // an error comes again
		case err == io.EOF:
			return 0, r.fail(io.ErrUnexpectedEOF)
		case err != nil:
			return 0, r.fail(err)
		}
	}
	return 0, r.fail(io.ErrNoProgress)
}

func (r *Reader) fail(err error) error {
	r.err = err
	clear(r.buf[:])
	r.from, r.end = 0, 0
	return err
}
