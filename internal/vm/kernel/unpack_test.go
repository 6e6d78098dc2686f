package kernel

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// testELF is the smallest image with a note, PVH's or another.
func testELF(note uint32) []byte {
	var notes bytes.Buffer
	for _, v := range []uint32{4, 8, note} {
		binary.Write(&notes, binary.LittleEndian, v)
	}
	notes.WriteString("Xen\x00")
	notes.Write(make([]byte, 8))

	var b bytes.Buffer
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	binary.Write(&b, binary.LittleEndian, h)
	binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_NOTE), Off: 120, Filesz: uint64(notes.Len()), Memsz: uint64(notes.Len())})
	b.Write(notes.Bytes())
	b.Write(bytes.Repeat([]byte("kernel"), 1000))
	return b.Bytes()
}

// bzImage wraps a payload as Linux's build does.
func bzImage(payload []byte) []byte {
	f := make([]byte, 1024, 1024+len(payload))
	f[offSetupSects] = 1
	copy(f[offMagic:], "HdrS")
	binary.LittleEndian.PutUint16(f[offVersion:], 0x20f)
	binary.LittleEndian.PutUint16(f[offKernelString:], 0x300-0x200)
	copy(f[0x300:], "6.1.0-test (builder) #1\x00")
	binary.LittleEndian.PutUint32(f[offPayloadSize:], uint32(len(payload)))
	return append(f, payload...)
}

var compressors = map[string]func(io.Writer) io.WriteCloser{
	"lz4":  func(w io.Writer) io.WriteCloser { z := lz4.NewWriter(w); z.Apply(lz4.LegacyOption(true)); return z },
	"gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
	"xz":   func(w io.Writer) io.WriteCloser { z, _ := xz.NewWriter(w); return z },
	"zstd": func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z },
}

func packed(name string, image []byte) []byte {
	var b bytes.Buffer
	z := compressors[name](&b)
	z.Write(image)
	z.Close()
	if name != "gzip" { // whose own trailer is the size
		binary.Write(&b, binary.LittleEndian, uint32(len(image)))
	}
	return b.Bytes()
}

func TestUnpack(t *testing.T) {
	image := testELF(xenElfnotePhys32Entry)
	for name := range compressors {
		t.Run(name, func(t *testing.T) {
			got, err := Unpack(bzImage(packed(name, image)))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, image) {
				t.Errorf("%d bytes instead of %d", len(got), len(image))
			}
		})
	}
	t.Run("elf", func(t *testing.T) {
		if got, err := Unpack(image); err != nil || !bytes.Equal(got, image) {
			t.Error(err)
		}
	})
}

func TestUnpackRefuses(t *testing.T) {
	good := bzImage(packed("lz4", testELF(xenElfnotePhys32Entry)))
	huge := bytes.Clone(good)
	binary.LittleEndian.PutUint32(huge[len(huge)-4:], 1<<31)
	old := bytes.Clone(good)
	binary.LittleEndian.PutUint16(old[offVersion:], 0x200)
	for name, file := range map[string][]byte{
		"empty":               {},
		"text":                []byte("no kernel at all"),
		"cut short":           good[:len(good)-100],
		"a longer image":      huge,
		"old protocol":        old,
		"unknown compression": bzImage([]byte("????????")),
		"no ELF inside":       bzImage(packed("gzip", []byte("no ELF"))),
		"ELF cut short":       testELF(xenElfnotePhys32Entry)[:70],
	} {
		if _, err := Unpack(file); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := Unpack(bzImage(packed("xz", testELF(1)))); !errors.Is(err, ErrNoPVH) {
		t.Errorf("no PVH note: %v", err)
	}
}

func TestRelease(t *testing.T) {
	if got := Release(bzImage(make([]byte, 8))); got != "6.1.0-test" {
		t.Errorf("%q", got)
	}
	if got := Release([]byte("text")); got != "" {
		t.Errorf("%q", got)
	}
}

func FuzzUnpack(f *testing.F) {
	for name := range compressors {
		f.Add(bzImage(packed(name, testELF(xenElfnotePhys32Entry))))
	}
	f.Add(testELF(xenElfnotePhys32Entry))
	f.Fuzz(func(t *testing.T, file []byte) {
		if len(file) >= 4 && binary.LittleEndian.Uint32(file[len(file)-4:]) > 16<<20 {
			return // only slow
		}
		Release(file)
		if image, err := Unpack(file); err == nil && checkPVH(image) != nil {
			t.Error("an image without PVH")
		}
	})
}

// Kernels are packed with xz's filter for x86 code, which our own encoder
// lacks: testdata/x86.xz is `xz --check=crc32 --x86 --lzma2=dict=1MiB` of 64
// calls.
func TestXZFilter(t *testing.T) {
	var want []byte
	for i := range uint32(64) {
		want = append(binary.LittleEndian.AppendUint32(append(want, 0xe8), 0x1000+i*7), "kern"...)
	}
	packed, err := os.ReadFile("testdata/x86.xz")
	if err != nil {
		t.Fatal(err)
	}
	got, err := decompress(binary.LittleEndian.AppendUint32(packed, uint32(len(want))))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes, %v", len(got), len(want), err)
	}
}
