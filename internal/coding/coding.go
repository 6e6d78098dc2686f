// Package coding decodes the content codings of HTTP, RFC 9110 §8.4: gzip,
// deflate, br and zstd, alone or one over another.
//
// It fails closed: a coding that it does not know, a stream that ends too
// early, that is followed by anything, that fails its checksum, that grows
// beyond bounds or asks for too large a window is an error, never the end of
// the content. It is live: what the coded bytes at hand amount to is returned
// before more are waited for, so a flushed stream is not delayed. It never
// encodes: a value compressed beside the guest's text would be an oracle for
// its bytes.
package coding

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Errors of decoding. Those of the source are returned as they are.
var (
	ErrUnknown   = errors.New("unknown content coding")
	ErrExpansion = errors.New("coded content expands beyond the limit")
	ErrMemory    = errors.New("no memory to decode the content")
	ErrDamaged   = errors.New("coded content is damaged")
)

// A Budget is memory that decoders share. Take reports whether n bytes were
// there to be taken; Give returns them.
type Budget interface {
	Take(n int64) bool
	Give(n int64)
}

// Limits bound what coded content may cost. The zero Limits are those of the
// constants.
type Limits struct {
	Ratio  int64  // decoded bytes per coded byte; 0 = DefaultRatio
	Free   int64  // decoded bytes that Ratio does not concern; 0 = DefaultFree
	Max    int64  // decoded bytes in all; 0 = any
	Window int64  // largest window of one coding; 0 = MaxWindow
	Budget Budget // for the windows; nil = none is kept
}

const (
	// DefaultRatio is what Apache's mod_deflate permits requests. Logs and
	// JSON come to 50; only runs of one byte go beyond.
	DefaultRatio = 200
	// DefaultFree lets a short content be as repetitive as it likes: a blank
	// image or a sparse table is no attack.
	DefaultFree = 16 << 20
	// MaxWindow is what RFC 9659 §3 permits zstd in HTTP, and all levels of
	// zstd but the ultra ones and all of brotli but its widest keep to.
	MaxWindow = 8 << 20
	// maxStacked is how many codings may lie over another. Nobody uses more
	// than two, and each has a window.
	maxStacked = 4
)

// Known reports whether content of the coding can be decoded. Its name is
// read without regard to case.
func Known(encoding string) bool {
	switch canonical(encoding) {
	case "gzip", "x-gzip", "deflate", "br", "zstd", "identity", "":
		return true
	}
	return false
}

func canonical(encoding string) string { return strings.ToLower(strings.Trim(encoding, " \t")) }

// Parse returns the codings that Content-Encoding fields name, in the order
// in which they were applied; identity is left out.
func Parse(fields []string) []string {
	var out []string
	for _, f := range fields {
		for e := range strings.SplitSeq(f, ",") {
			if e = canonical(e); e != "" && e != "identity" {
				out = append(out, e)
			}
		}
	}
	return out
}

// NewReader returns the content that is coded in r; encodings are in the
// order in which they were applied. It reads nothing yet. An empty r is empty
// content, whatever its coding. Close gives the memory back and leaves r
// open; it is needed unless Read has returned an error.
func NewReader(r io.Reader, encodings []string, l Limits) (io.ReadCloser, error) {
	encodings = Parse(encodings)
	for _, e := range encodings {
		if !Known(e) {
			return nil, fmt.Errorf("%w %q", ErrUnknown, e)
		}
	}
	if len(encodings) > maxStacked {
		return nil, fmt.Errorf("%w: more than %d codings", ErrUnknown, maxStacked)
	}
	if len(encodings) == 0 && l.Max == 0 {
		return io.NopCloser(r), nil
	}
	d := &decoder{in: source{r: r}, limits: l.filled()}
	d.out = &d.in
	for i := len(encodings) - 1; i >= 0; i-- {
		s := &stage{coding: encodings[i], d: d, src: bufio.NewReaderSize(d.out, sourceBuffer)}
		d.stages = append(d.stages, s)
		d.out = s
	}
	return d, nil
}

// sourceBuffer is small since a decoder reads it a byte at a time, and what
// is longer than it is read around it.
const sourceBuffer = 4 << 10

func (l Limits) filled() Limits {
	if l.Ratio <= 0 {
		l.Ratio = DefaultRatio
	}
	if l.Free <= 0 {
		l.Free = DefaultFree
	}
	if l.Window <= 0 || l.Window > MaxWindow {
		l.Window = MaxWindow
	}
	return l
}

// A decoder is the stages of all codings of one content.
type decoder struct {
	in     source
	limits Limits
	stages []*stage // the outermost coding first
	out    io.Reader
	n      int64 // bytes returned
	err    error
}

func (d *decoder) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	n, err := d.out.Read(p)
	d.n += int64(n)
	if d.limits.Max > 0 && d.n > d.limits.Max {
		n, err = 0, ErrExpansion
	}
	if err != nil {
		d.close(err)
	}
	return n, err
}

func (d *decoder) Close() error {
	d.close(errors.New("decoder was closed"))
	return nil
}

func (d *decoder) close(err error) {
	if d.err == nil {
		d.err = err
	}
	for _, s := range d.stages {
		s.close()
	}
}

// A source is the coded content. It keeps its error, counts, and never
// returns nothing for ever.
type source struct {
	r   io.Reader
	n   int64
	err error
}

func (s *source) Read(p []byte) (int, error) {
	for range 100 { // as bufio and io.ReadFull do
		if s.err != nil {
			return 0, s.err
		}
		n, err := s.r.Read(p)
		s.n, s.err = s.n+int64(n), err
		if n > 0 {
			return n, nil
		}
	}
	s.err = io.ErrNoProgress
	return 0, s.err
}
