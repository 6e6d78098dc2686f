package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Run reads frames until the link ends and returns why. Messages go to handle,
// which must not wait for the link; an error from it ends the link.
func (l *Link) Run(handle func(Message) error) error {
	err := l.read(handle)
	l.fail(broken(err))
	l.idle.Wait()
	return l.Err()
}

func (l *Link) read(handle func(Message) error) error {
	var body []byte // of the message that is being put together
	var open header // its last part; more = unfinished
	for {
		var b [headerSize]byte
		if _, err := io.ReadFull(l.br, b[:]); err != nil {
			return err
		}
		h, err := parseHeader(b)
		if err != nil {
			return err
		}
		if open.more && (h.call != open.call || h.kind != open.kind) {
			return violation("an unfinished message")
		}
		if h.kind >= kindData {
			if err := l.stream(h); err != nil {
				return err
			}
			continue
		}
		if len(body)+h.length > l.maxMessage || h.more && h.length == 0 {
			return violation("a message of more than %d bytes", l.maxMessage)
		}
		at := len(body)
		body = append(body, make([]byte, h.length)...)
		if _, err := io.ReadFull(l.br, body[at:]); err != nil {
			return err
		}
		open = h
		if h.more {
			continue
		}
		if err := handle(Message{h.call, h.kind, body}); err != nil {
			return fmt.Errorf("%w: %w", ErrViolation, err)
		}
		if body = body[:0]; cap(body) > maxPayload {
			body = nil
		}
	}
}

// stream handles a frame of a channel.
func (l *Link) stream(h header) error {
	k := key{h.call, h.channel}
	l.mu.Lock()
	in, out, known := l.in[k], l.out[k], h.call <= l.last
	l.mu.Unlock()
	switch {
	case !known:
		return violation("a frame of call %d, which is not open", h.call)
	case h.kind == kindData && in != nil:
		return in.receive(l.br, h.length)
	case h.kind == kindEnd && in != nil:
		l.forget(k, true)
		in.end()
		return nil
	case h.kind == kindStop && out != nil:
		l.forget(k, false)
		out.stop()
		return nil
	case h.kind == kindWindow && out != nil:
		var b [4]byte
		if _, err := io.ReadFull(l.br, b[:]); err != nil {
			return err
		}
		return out.add(binary.BigEndian.Uint32(b[:]))
	}
	return discard(l.br, h.length) // the call is over
}

func discard(r io.Reader, n int) error {
	_, err := io.CopyN(io.Discard, r, int64(n))
	return err
}

// broken words an error of the connection; a violation stays as it is.
func broken(err error) error {
	switch {
	case err == nil || errors.Is(err, ErrViolation):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, os.ErrClosed), errors.Is(err, io.ErrClosedPipe):
		return io.ErrUnexpectedEOF
	}
	return err
}
