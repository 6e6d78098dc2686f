package image

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// A coding is a compression that layers or root file systems come in.
type coding uint8

const (
	plain coding = iota
	gzipCoding
	zstdCoding
	xzCoding
	bzip2Coding
)

func sniff(head []byte) coding {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzipCoding
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstdCoding
	case len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}):
		return zstdCoding // a skippable frame comes first
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		return xzCoding
	case bytes.HasPrefix(head, []byte("BZh")):
		return bzip2Coding
	}
	return plain
}

// maxWindow bounds the memory that a compressed stream may ask for: 128 MiB
// is what zstd --ultra and xz -9 need.
const maxWindow = 128 << 20

// decompress returns r's content, whatever it is compressed with. Layers may
// be plain, gzip or zstd, as OCI has them; a root file system also xz and
// bzip2, whose decoder cannot be held to maxWindow past the first block.
func decompress(r io.Reader, layer bool) (io.Reader, func(), error) {
	br := bufio.NewReaderSize(r, 256<<10)
	head, err := br.Peek(32)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	nothing := func() {}
	c := sniff(head)
	if layer && (c == xzCoding || c == bzip2Coding) {
		return nil, nil, refuse("layer is compressed with neither gzip nor zstd")
	}
	switch c {
	case gzipCoding:
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, nil, damaged(err)
		}
		return damagedReader{z}, nothing, nil
	case zstdCoding:
		z, err := zstd.NewReader(br, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, nil, damaged(err)
		}
		return damagedReader{z}, z.Close, nil
	case xzCoding:
		if xzDictionary(head) > maxWindow {
			return nil, nil, refuse("xz stream wants a dictionary above 128 MiB")
		}
		z, err := xz.NewReader(br)
		if err != nil {
			return nil, nil, damaged(err)
		}
		return damagedReader{z}, nothing, nil
	case bzip2Coding:
		return damagedReader{bzip2.NewReader(br)}, nothing, nil
	}
	return br, nothing, nil
}

// xzDictionary reads the dictionary size from the first block's LZMA2 filter,
// the only one that xz files of tars have (xz file format, 3.1 and 5.3.1).
func xzDictionary(head []byte) int64 {
	if len(head) < 17 || head[14] != 0x21 || head[15] != 1 {
		return 1 << 62 // other filters or optional sizes: let it be refused
	}
	b := head[16]
	if b >= 40 {
		return 4<<30 - 1
	}
	return int64(2|b&1) << (b/2 + 11)
}

// A damagedReader turns a decoder's errors into refusals, so that they are
// not taken for failures of this machine; those of the source stay as is.
type damagedReader struct{ r io.Reader }

func (d damagedReader) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if err != nil && err != io.EOF {
		err = damaged(err)
	}
	return n, err
}

func damaged(err error) error {
	return fmt.Errorf("%w: decompress: %w", ErrRefused, err)
}
