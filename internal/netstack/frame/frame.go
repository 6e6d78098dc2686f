// Package frame speaks the framing of QEMU's stream network back-end (and of
// passt): every Ethernet frame behind its length, four bytes, big endian.
//
// The peer is not trusted. A frame of a length that no link has ends the
// stream, because what follows cannot be found any more.
package frame

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
)

// Max is the longest frame that is accepted: an IP packet is at most 65,535
// bytes long, and QEMU itself sends nothing over 68 KiB.
const Max = 128 << 10

// ErrLength is returned for a frame longer than Max.
var ErrLength = errors.New("frame is too long")

// A Link carries frames. One goroutine calls Next; the other methods may be
// called from several. Close ends Next.
type Link interface {
	// Next returns the next frame, valid until the next call.
	Next() ([]byte, error)
	// WriteFrames writes n frames; parts returns the pieces of one.
	WriteFrames(n int, parts func(i int) [][]byte) error
	Close() error
}

// A Stream is a connection with frames in QEMU's framing. It is a [Link].
type Stream struct {
	*Reader
	*Writer
	conn net.Conn
}

// NewStream returns the frames of conn, which it owns.
func NewStream(conn net.Conn) *Stream {
	return &Stream{NewReader(conn), NewWriter(conn), conn}
}

// Close closes the connection.
func (s *Stream) Close() error { return s.conn.Close() }

// A Reader reads frames. It is used by one goroutine.
type Reader struct {
	r    *bufio.Reader
	last int // length of the frame that Next returned, still in r
}

// NewReader returns a reader of frames from r. The buffer holds four frames
// of the largest MTU, which saves three reads of four.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 256<<10)}
}

// Next returns the next frame, valid until the next call. It may be empty.
func (r *Reader) Next() ([]byte, error) {
	r.r.Discard(r.last)
	r.last = 0
	head, err := r.r.Peek(4)
	if err != nil {
		return nil, ending(err, len(head))
	}
	n := binary.BigEndian.Uint32(head)
	if n > Max {
		return nil, ErrLength
	}
	b, err := r.r.Peek(4 + int(n))
	if err != nil {
		return nil, ending(err, len(b))
	}
	r.last = len(b)
	return b[4:], nil
}

// ending tells the end of the stream between two frames from one inside.
func ending(err error, got int) error {
	if err == io.EOF && got > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}

// A Writer writes frames. Its methods may be called from several goroutines.
type Writer struct {
	mu    sync.Mutex
	w     io.Writer
	parts net.Buffers
	heads [][4]byte
}

// NewWriter returns a writer of frames to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// WriteFrame writes one frame.
func (w *Writer) WriteFrame(frame []byte) error {
	return w.WriteFrames(1, func(int) [][]byte { return [][]byte{frame} })
}

// WriteFrames writes n frames with one system call if it can; parts returns
// the pieces of a frame.
func (w *Writer) WriteFrames(n int, parts func(i int) [][]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if cap(w.heads) < n {
		w.heads = make([][4]byte, n)
	}
	w.heads = w.heads[:n]
	all := w.parts[:0]
	for i := range n {
		head := len(all)
		all = append(all, w.heads[i][:])
		all = append(all, parts(i)...)
		length := 0
		for _, p := range all[head+1:] {
			length += len(p)
		}
		binary.BigEndian.PutUint32(w.heads[i][:], uint32(length))
	}
	w.parts = all
	_, err := all.WriteTo(w.w) // consumes all, not w.parts
	clear(w.parts)
	return err
}
