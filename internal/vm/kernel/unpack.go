package kernel

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/therootcompany/xz"
)

// maxImage bounds an unpacked kernel: today's are 50 to 80 MB, with every
// debugging option on under 512 MB.
const maxImage = 512 << 20

// xzDict is the largest dictionary that is accepted; kernels are built with
// 32 MiB.
const xzDict = 64 << 20

// ErrNoPVH means that the kernel has no PVH entry point, so that QEMU cannot
// enter the ELF image directly.
var ErrNoPVH = errors.New("the kernel has no PVH entry (CONFIG_PVH)")

// Unpack returns the ELF image inside a bzImage. A file that is an ELF image
// already is checked and returned.
func Unpack(file []byte) ([]byte, error) {
	image := file
	if !bytes.HasPrefix(file, []byte(elf.ELFMAG)) {
		p, err := payload(file)
		if err != nil {
			return nil, err
		}
		if image, err = decompress(p); err != nil {
			return nil, fmt.Errorf("decompress: %w", err)
		}
	}
	if err := checkPVH(image); err != nil {
		return nil, err
	}
	return image, nil
}

// Offsets in the setup header of a bzImage, from
// Documentation/arch/x86/boot.rst.
const (
	offSetupSects   = 0x1f1
	offMagic        = 0x202
	offVersion      = 0x206
	offKernelString = 0x20e
	offPayload      = 0x248
	offPayloadSize  = 0x24c
	minHeader       = 0x250
)

// setup returns the length of the real-mode part of a bzImage.
func setup(file []byte) (int, error) {
	if len(file) < minHeader || string(file[offMagic:offMagic+4]) != "HdrS" {
		return 0, errors.New("not a Linux bzImage")
	}
	if binary.LittleEndian.Uint16(file[offVersion:]) < 0x208 {
		return 0, errors.New("the boot protocol is older than 2.08")
	}
	sects := int(file[offSetupSects])
	if sects == 0 {
		sects = 4
	}
	return (sects + 1) * 512, nil
}

func payload(file []byte) ([]byte, error) {
	start, err := setup(file)
	if err != nil {
		return nil, err
	}
	off := uint64(start) + uint64(binary.LittleEndian.Uint32(file[offPayload:]))
	size := uint64(binary.LittleEndian.Uint32(file[offPayloadSize:]))
	if size < 8 || off+size > uint64(len(file)) {
		return nil, errors.New("the file is cut short")
	}
	return file[off : off+size], nil
}

// Release is the kernel's own name for itself, or "" if the file has none.
func Release(file []byte) string {
	start, err := setup(file)
	if err != nil {
		return ""
	}
	off := int(binary.LittleEndian.Uint16(file[offKernelString:])) + 0x200
	if off == 0x200 || off >= start || start > len(file) {
		return ""
	}
	s := file[off:start]
	if i := bytes.IndexAny(s, " \x00"); i >= 0 {
		s = s[:i]
	}
	return string(s)
}

// decompress undoes any of the compressions that the kernel's build offers
// and distributions use. The last four bytes are the unpacked size, which the
// formats' own ends make redundant.
func decompress(p []byte) ([]byte, error) {
	r, err := reader(p)
	if err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(p[len(p)-4:])
	if size > maxImage {
		return nil, errors.New("the image would be too large")
	}
	image := make([]byte, size)
	if _, err := io.ReadFull(r, image); err != nil {
		return nil, err
	}
	return image, nil
}

func reader(p []byte) (io.Reader, error) {
	in := bytes.NewReader(p[:len(p)-4])
	switch {
	case bytes.HasPrefix(p, []byte{0x02, 0x21, 0x4c, 0x18}): // LZ4 legacy frame
		return lz4.NewReader(in), nil
	case bytes.HasPrefix(p, []byte{0x1f, 0x8b}):
		return gzip.NewReader(bytes.NewReader(p)) // its size field is gzip's own trailer
	case bytes.HasPrefix(p, []byte("\xfd7zXZ\x00")):
		return xz.NewReader(in, xzDict) // this library knows the x86 filter that kernels use
	case bytes.HasPrefix(p, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxImage))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return nil, fmt.Errorf("unknown compression %x", p[:4])
}

// xenElfnotePhys32Entry is XEN_ELFNOTE_PHYS32_ENTRY, the PVH entry point.
const xenElfnotePhys32Entry = 18

func checkPVH(image []byte) error {
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return fmt.Errorf("the image is no ELF file: %w", err)
	}
	if f.Machine != elf.EM_X86_64 {
		return fmt.Errorf("the image is for %s, not x86-64", f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE || p.Filesz > 1<<20 {
			continue
		}
		notes := make([]byte, p.Filesz)
		if _, err := p.ReadAt(notes, 0); err != nil {
			return fmt.Errorf("read ELF notes: %w", err)
		}
		if hasNote(notes, "Xen", xenElfnotePhys32Entry) {
			return nil
		}
	}
	return ErrNoPVH
}

func hasNote(notes []byte, owner string, kind uint32) bool {
	for len(notes) >= 12 {
		name := uint64(binary.LittleEndian.Uint32(notes))
		desc := uint64(binary.LittleEndian.Uint32(notes[4:]))
		typ := binary.LittleEndian.Uint32(notes[8:])
		notes = notes[12:]
		end := (name+3)&^3 + (desc+3)&^3
		if name > uint64(len(notes)) || end > uint64(len(notes)) {
			return false
		}
		if typ == kind && string(bytes.TrimRight(notes[:name], "\x00")) == owner {
			return true
		}
		notes = notes[end:]
	}
	return false
}
