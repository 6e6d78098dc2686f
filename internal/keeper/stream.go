package keeper

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// A command's stream carries frames both ways over the upgraded connection:
// one byte of kind, four of length (big-endian), then the payload. Output is
// held back by the socket itself. Input has a window of its own, so that a
// command which does not read its input can still be signalled.

type frameKind byte

const (
	frameStdin  frameKind = iota // client → keeper; empty = end of input
	frameResize                  // client → keeper; JSON size
	frameSignal                  // client → keeper; name without SIG
	frameTaken                   // keeper → client; input bytes that the command took, 4 bytes
	frameStdout                  // keeper → client
	frameStderr                  // keeper → client
	frameEvent                   // keeper → client; JSON audit.Event
	frameExit                    // keeper → client; JSON Exit, the last frame
	frameKindsEnd
)

const (
	maxFrame    = 64 << 10     // what one read of a pipe returns
	stdinWindow = 4 * maxFrame // input on its way that was not taken yet
)

// Exit is how a command ended.
type Exit struct {
	Code          int    `json:"code"`
	NotFound      bool   `json:"not_found,omitempty"`
	NotExecutable bool   `json:"not_executable,omitempty"`
	Reason        string `json:"reason,omitempty"` // why it could not be started, the guest's text
	Error         string `json:"error,omitempty"`  // the sandbox failed, not the command
}

type size struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// A frameWriter writes whole frames; its methods may be called from several
// goroutines.
type frameWriter struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
}

func (f *frameWriter) write(kind frameKind, payload []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.buf = append(f.buf[:0], byte(kind))
	f.buf = binary.BigEndian.AppendUint32(f.buf, uint32(len(payload)))
	f.buf = append(f.buf, payload...)
	_, err := f.w.Write(f.buf)
	return err
}

func (f *frameWriter) writeJSON(kind frameKind, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return f.write(kind, data)
}

// pump copies r into frames of kind until it ends.
func (f *frameWriter) pump(kind frameKind, r io.Reader) error {
	buf := make([]byte, maxFrame)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if werr := f.write(kind, buf[:n]); werr != nil {
				return werr
			}
		}
		if err != nil {
			return err
		}
	}
}

// readFrame reads one frame into buf, which it may grow, and returns the
// payload within it.
func readFrame(r io.Reader, buf *[]byte) (frameKind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	kind, n := frameKind(head[0]), binary.BigEndian.Uint32(head[1:])
	if kind >= frameKindsEnd || n > maxFrame {
		return 0, nil, fmt.Errorf("invalid frame of kind %d and %d bytes", kind, n)
	}
	if cap(*buf) < int(n) {
		*buf = make([]byte, n)
	}
	payload := (*buf)[:n]
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return kind, payload, nil
}
