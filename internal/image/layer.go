package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
)

// A layer can be walked several times and must then give the same entries.
type layer interface {
	// walk calls visit for every entry in order. Content is that of a
	// regular file and need not be read.
	walk(ctx context.Context, visit func(h *tar.Header, content io.Reader) error) error

	// whiteouts reports whether .wh. names are marks and not files.
	whiteouts() bool

	// size is the bytes that one walk reads, 0 if unknown.
	size() int64

	// stage is told what a walk has read; it may be nil.
	observe(read func(n int64))
}

// A tarLayer is a tar, compressed or not.
type tarLayer struct {
	open   func() (io.ReadCloser, error)
	bytes  int64 // as stored
	marks  bool  // white-outs
	oci    bool  // only what registries have: plain, gzip, zstd
	limits Limits

	digest string // wanted of the stored bytes; "" = any
	diffID string // wanted of the tar; "" = any, and set by the first walk

	read func(n int64)
}

func (l *tarLayer) whiteouts() bool            { return l.marks }
func (l *tarLayer) size() int64                { return l.bytes }
func (l *tarLayer) observe(read func(n int64)) { l.read = read }

func (l *tarLayer) walk(ctx context.Context, visit func(*tar.Header, io.Reader) error) error {
	f, err := l.open()
	if err != nil {
		return fmt.Errorf("open layer: %w", err)
	}
	defer f.Close()
	stored := &meter{ctx: ctx, r: f, read: l.read}
	if l.digest != "" {
		stored.hash = sha256.New()
	}
	unpacked, done, err := decompress(stored, l.oci)
	if err != nil {
		return err
	}
	defer done()
	// The tar's own blocks come on top of the content: 8 KiB for each entry
	// are more than headers and padding take, and an eighth is room for
	// what lies between and behind.
	limited := &bombGuard{
		r: unpacked, stored: stored, ratio: l.limits.Ratio,
		left: l.limits.TotalBytes + l.limits.TotalBytes/8 + min(int64(l.limits.Entries)*8<<10, metadataMax),
	}
	sum := sha256.New()
	content := io.TeeReader(limited, sum)
	tr := tar.NewReader(content)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return tarError(err)
		}
		if err := visit(h, tarContent{tr}); err != nil {
			return err
		}
	}
	// What follows the end mark is part of the digests.
	buf := make([]byte, 64<<10)
	if _, err := io.CopyBuffer(io.Discard, onlyReader{content}, buf); err != nil {
		return tarError(err)
	}
	if _, err := io.CopyBuffer(io.Discard, onlyReader{stored}, buf); err != nil {
		return err
	}
	return l.checkSums(stored.hash, sum)
}

func (l *tarLayer) checkSums(stored, unpacked hash.Hash) error {
	if stored != nil && "sha256:"+hex.EncodeToString(stored.Sum(nil)) != l.digest {
		return refuse("a layer is not what its digest says")
	}
	got := "sha256:" + hex.EncodeToString(unpacked.Sum(nil))
	if l.diffID != "" && got != l.diffID {
		return refuse("the content of a layer is not what its digest says")
	}
	l.diffID = got
	return nil
}

type onlyReader struct{ io.Reader }

// tarContent marks damage inside of an entry as the layer's.
type tarContent struct{ r *tar.Reader }

func (c tarContent) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err != nil && err != io.EOF {
		err = tarError(err)
	}
	return n, err
}

// tarError tells damage to a layer from failures of this machine.
func tarError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, tar.ErrFieldTooLong) || errors.Is(err, tar.ErrWriteTooLong) {
		return refuse("not a whole tar: %w", err)
	}
	return fmt.Errorf("read layer: %w", err)
}

// A meter counts and hashes what is read and stops when ctx is done.
type meter struct {
	ctx  context.Context
	r    io.Reader
	hash hash.Hash // may be nil
	n    int64
	read func(n int64) // may be nil
}

func (m *meter) Read(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.r.Read(p)
	m.n += int64(n)
	if m.hash != nil {
		m.hash.Write(p[:n])
	}
	if m.read != nil {
		m.read(int64(n))
	}
	return n, err
}

// A bombGuard refuses a stream that unpacks to too much.
type bombGuard struct {
	r      io.Reader
	stored *meter
	ratio  int64
	n      int64
	left   int64
}

// freeUnpack is what may be unpacked at any ratio: an almost empty layer of
// zeros is legitimate and harmless.
const freeUnpack = 256 << 20

func (b *bombGuard) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n += int64(n)
	if b.left -= int64(n); b.left < 0 {
		return 0, refuse("a layer unpacks to more than the limit")
	}
	if b.n > freeUnpack && b.n-freeUnpack > b.ratio*b.stored.n {
		return 0, refuse("a layer unpacks to more than %d times its size", b.ratio)
	}
	return n, err
}
