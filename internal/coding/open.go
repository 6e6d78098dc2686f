package coding

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// Memory of decoders beside their windows, measured and rounded up.
const (
	flateState  = 128 << 10
	brotliState = 1 << 20
	zstdState   = 1 << 20
)

// open makes the decoder. The source has at least one byte.
func (s *stage) open() error {
	switch s.coding {
	case "br":
		return s.openBrotli()
	case "zstd":
		return s.openZstd()
	}
	if err := s.take(flateState); err != nil {
		return err
	}
	if s.coding == "deflate" {
		return s.openDeflate()
	}
	z, err := gzip.NewReader(s.src)
	if err != nil {
		return err
	}
	z.Multistream(false)
	s.dec = &members{z: z, src: s.src}
	return nil
}

// members reads the members of a gzip file one after the other, RFC 1952
// §2.2. The library's own way would wait for the next one before it returns
// the end of the last.
type members struct {
	z   *gzip.Reader
	src *bufio.Reader
	end bool // of a member
}

func (m *members) Read(p []byte) (int, error) {
	if m.end {
		if _, err := m.src.Peek(1); err != nil {
			return 0, err
		}
		if err := m.z.Reset(m.src); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		m.z.Multistream(false)
		m.end = false
	}
	n, err := m.z.Read(p)
	if err == io.EOF {
		m.end, err = true, nil
	}
	return n, err
}

// openDeflate tells zlib (RFC 1950), which RFC 9110 means by deflate, from
// the bare stream (RFC 1951), which some senders mean. A bare stream that
// begins as zlib does would be a stored block with set padding bits, which no
// encoder writes.
func (s *stage) openDeflate() (err error) {
	head, _ := s.src.Peek(2)
	if len(head) == 2 && head[0]&0x0f == 8 && head[0]>>4 <= 7 && (int(head[0])<<8|int(head[1]))%31 == 0 {
		s.dec, err = zlib.NewReader(s.src)
		return err
	}
	s.dec = flate.NewReader(s.src)
	return nil
}

func (s *stage) openBrotli() error {
	head, err := s.src.Peek(1)
	if err != nil {
		return err
	}
	window := int64(1) << brotliWindow(head[0])
	if window > s.d.limits.Window {
		return fmt.Errorf("%w: brotli window of %d MiB", ErrExpansion, window>>20)
	}
	if err := s.take(window + brotliState); err != nil {
		return err
	}
	s.dec = brotli.NewReader(s.src)
	return nil
}

// brotliWindow returns the logarithm of the window size that the first byte
// of a stream declares, RFC 7932 §9.1. What is not valid is left to the
// decoder.
func brotliWindow(b byte) int {
	switch {
	case b&1 == 0:
		return 16
	case b>>1&7 != 0:
		return 17 + int(b>>1&7)
	case b>>4&7 > 1:
		return 8 + int(b>>4&7)
	}
	return 17
}

// openZstd charges for the window that the first frame asks for, and holds
// the frames after it to the same.
func (s *stage) openZstd() error {
	window := s.d.limits.Window
	if h, err := zstdHeader(s.src); err != nil {
		return err
	} else if !h.Skippable {
		// A frame of one segment has its content as its window.
		want := h.WindowSize
		if h.SingleSegment {
			want = h.FrameContentSize
		}
		if want > uint64(window) {
			return fmt.Errorf("%w: zstd window of %d MiB", ErrExpansion, want>>20)
		}
		window = min(window, max(int64(want), 1<<20))
	}
	if err := s.take(window + zstdState); err != nil {
		return err
	}
	z, err := zstd.NewReader(s.src,
		zstd.WithDecoderConcurrency(1), // no goroutines, nothing read ahead
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(uint64(window)))
	if err != nil {
		return err
	}
	b := newBlocks(z)
	s.dec = b
	s.done = func() { b.stop(); z.Close() }
	return nil
}

// zstdHeader peeks at a frame header, waiting for no more of it than there
// must be.
func zstdHeader(src *bufio.Reader) (h zstd.Header, err error) {
	for n := 1; n <= zstd.HeaderMaxSize; n++ {
		head, err := src.Peek(n)
		if err != nil {
			return h, err
		}
		if err = h.Decode(head); !errors.Is(err, io.ErrUnexpectedEOF) {
			return h, err
		}
	}
	return h, io.ErrUnexpectedEOF
}

// blocks reads a zstd stream block by block. The library's Read would wait
// for further blocks until its buffer is full; WriteTo does not, and runs
// here as a coroutine.
type blocks struct {
	next func() ([]byte, bool)
	stop func()
	rest []byte // of the block
	err  error  // of WriteTo
}

func newBlocks(z *zstd.Decoder) *blocks {
	b := new(blocks)
	b.next, b.stop = iter.Pull(func(yield func([]byte) bool) {
		_, b.err = z.WriteTo(yielder(yield))
	})
	return b
}

func (b *blocks) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		block, ok := b.next()
		if !ok {
			if b.err == nil {
				return 0, io.EOF
			}
			return 0, b.err
		}
		b.rest = block
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// A yielder is a Writer that hands over what is written.
type yielder func([]byte) bool

func (y yielder) Write(p []byte) (int, error) {
	if !y(p) {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}
