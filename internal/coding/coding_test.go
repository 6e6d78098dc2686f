package coding

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

type flusher interface {
	io.WriteCloser
	Flush() error
}

// encoders are other implementations where there is one.
var encoders = map[string]func(io.Writer) flusher{
	"gzip":    func(w io.Writer) flusher { return gzip.NewWriter(w) },
	"x-gzip":  func(w io.Writer) flusher { return gzip.NewWriter(w) },
	"deflate": func(w io.Writer) flusher { return zlib.NewWriter(w) },
	"br": func(w io.Writer) flusher {
		return brotli.NewWriterOptions(w, brotli.WriterOptions{Quality: 5, LGWin: 22})
	},
	"zstd": func(w io.Writer) flusher {
		z, _ := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
		return z
	},
}

func encode(t testing.TB, text string, codings ...string) string {
	t.Helper()
	for _, c := range codings {
		var b bytes.Buffer
		w := encoders[c](&b)
		io.WriteString(w, text)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		text = b.String()
	}
	return text
}

func bare(text string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, 6)
	io.WriteString(w, text)
	w.Close()
	return b.String()
}

func decode(r io.Reader, l Limits, codings ...string) (string, error) {
	d, err := NewReader(r, codings, l)
	if err != nil {
		return "", err
	}
	defer d.Close()
	out, err := io.ReadAll(d)
	return string(out), err
}

var sample = strings.Repeat("the guest says $MSB_TOKEN, and says it again. ", 5000)

func each(t *testing.T, f func(t *testing.T, coding string)) {
	for c := range encoders {
		t.Run(c, func(t *testing.T) { f(t, c) })
	}
}

func TestDecode(t *testing.T) {
	each(t, func(t *testing.T, c string) {
		for _, text := range []string{"", "x", sample, sample[:100_000]} {
			coded := encode(t, text, c)
			for name, r := range map[string]io.Reader{
				"whole":       strings.NewReader(coded),
				"bytes":       iotest.OneByteReader(strings.NewReader(coded)),
				"end at once": iotest.DataErrReader(strings.NewReader(coded)),
			} {
				if got, err := decode(r, Limits{}, strings.ToUpper(c)); got != text || err != nil {
					t.Errorf("%s: got %d of %d bytes, %v", name, len(got), len(text), err)
				}
			}
		}
	})
}

func TestBareDeflate(t *testing.T) {
	for _, text := range []string{"", "x", sample} {
		if got, err := decode(strings.NewReader(bare(text)), Limits{}, "deflate"); got != text || err != nil {
			t.Errorf("got %d of %d bytes, %v", len(got), len(text), err)
		}
	}
}

func TestMembers(t *testing.T) {
	for _, c := range []string{"gzip", "zstd"} {
		coded := encode(t, "one ", c) + encode(t, "", c) + encode(t, "two", c)
		if got, err := decode(strings.NewReader(coded), Limits{}, c); got != "one two" || err != nil {
			t.Errorf("%s: got %q, %v", c, got, err)
		}
	}
}

func TestStacked(t *testing.T) {
	coded := encode(t, sample, "br", "gzip", "zstd")
	got, err := decode(strings.NewReader(coded), Limits{}, "br, identity", "gzip,zstd")
	if got != sample || err != nil {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

func TestEmpty(t *testing.T) {
	each(t, func(t *testing.T, c string) {
		if got, err := decode(strings.NewReader(""), Limits{}, c, "gzip"); got != "" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

func TestKnown(t *testing.T) {
	for _, c := range []string{"compress", "dcb", "aes128gcm", "gzip2", "xgzip", "*"} {
		if Known(c) {
			t.Errorf("%s is known", c)
		}
		if _, err := NewReader(strings.NewReader(""), []string{"gzip", c}, Limits{}); !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %v", c, err)
		}
	}
	many := []string{"gzip, gzip, gzip", "gzip, gzip"}
	if _, err := NewReader(strings.NewReader(""), many, Limits{}); !errors.Is(err, ErrUnknown) {
		t.Errorf("five codings: %v", err)
	}
	for _, c := range []string{" GZip\t", "identity", "BR"} {
		if !Known(c) {
			t.Errorf("%q is unknown", c)
		}
	}
}

// What is cut short anywhere, followed by anything or damaged has no end.
func TestDamaged(t *testing.T) {
	each(t, func(t *testing.T, c string) {
		coded := encode(t, sample[:3000], c)
		for n := 1; n < len(coded); n++ {
			if got, err := decode(strings.NewReader(coded[:n]), Limits{}, c); !errors.Is(err, ErrDamaged) {
				t.Fatalf("cut to %d of %d: %d bytes, %v", n, len(coded), len(got), err)
			}
		}
		for _, tail := range []string{"\x00", "x", "garbage that is longer than any head", "\x1f\x8b", "\x28\xb5\x2f"} {
			if _, err := decode(strings.NewReader(coded+tail), Limits{}, c); !errors.Is(err, ErrDamaged) {
				t.Errorf("followed by %q: %v", tail, err)
			}
		}
		if c == "br" {
			return // has no checksum
		}
		b := []byte(coded)
		b[len(b)-6] ^= 1
		if _, err := decode(bytes.NewReader(b), Limits{}, c); !errors.Is(err, ErrDamaged) {
			t.Errorf("with a bit changed: %v", err)
		}
	})
}

func TestSourceError(t *testing.T) {
	broken := errors.New("the guest is gone")
	each(t, func(t *testing.T, c string) {
		coded := encode(t, sample, c, "gzip")
		for _, n := range []int{0, 1, 5, len(coded) / 2, len(coded) - 1, len(coded)} {
			r := io.MultiReader(strings.NewReader(coded[:n]), iotest.ErrReader(broken))
			if _, err := decode(r, Limits{}, c, "gzip"); err != broken {
				t.Errorf("after %d bytes: %v", n, err)
			}
		}
	})
}

// A live source panics where a network would wait for ever.
type live struct{ pieces []string }

func (l *live) Read(p []byte) (int, error) {
	if len(l.pieces) == 0 {
		panic("it was read ahead")
	}
	n := copy(p, l.pieces[0])
	if l.pieces[0] = l.pieces[0][n:]; l.pieces[0] == "" {
		l.pieces = l.pieces[1:]
	}
	return n, nil
}

// What was flushed is returned before more is asked for.
func TestLive(t *testing.T) {
	each(t, func(t *testing.T, c string) {
		for _, stack := range [][]string{{c}, {c, "gzip"}} {
			var b bytes.Buffer
			var w flusher = encoders[stack[len(stack)-1]](&b)
			outer := w
			if len(stack) == 2 {
				w = encoders[c](outer)
			}
			src := new(live)
			d, err := NewReader(src, stack, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			for i := range 50 {
				event := fmt.Sprintf("data: %d %s\n\n", i, strings.Repeat("x", i*i))
				io.WriteString(w, event)
				w.Flush()
				outer.Flush()
				src.pieces = append(src.pieces, b.String())
				b.Reset()
				got := make([]byte, 64<<10)
				n := 0
				for n < len(event) {
					m, err := d.Read(got[n:])
					if n += m; err != nil {
						t.Fatal(err)
					}
				}
				if string(got[:n]) != event {
					t.Fatalf("event %d is %q", i, got[:n])
				}
			}
		}
	})
}

// The end of a gzip member is not held back for what may follow it.
func TestLiveMember(t *testing.T) {
	d, _ := NewReader(&live{[]string{encode(t, "whole", "gzip")}}, []string{"gzip"}, Limits{})
	got := make([]byte, 100)
	if n, err := d.Read(got); string(got[:n]) != "whole" || err != nil {
		t.Errorf("got %q, %v", got[:n], err)
	}
}
