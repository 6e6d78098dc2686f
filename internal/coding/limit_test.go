package coding

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// bomb codes n zeroes.
func bomb(t testing.TB, n int64, codings ...string) string {
	var b bytes.Buffer
	w := encoders[codings[0]](&b)
	if _, err := io.CopyN(w, zeroes{}, n); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return encode(t, b.String(), codings[1:]...)
}

func TestBomb(t *testing.T) {
	each(t, func(t *testing.T, c string) {
		for _, stack := range [][]string{{c}, {c, "gzip"}, {c, c, "br"}} {
			coded := bomb(t, 64<<20, stack...)
			d, _ := NewReader(strings.NewReader(coded), stack, Limits{})
			n, err := io.Copy(io.Discard, d)
			if !errors.Is(err, ErrExpansion) || n > max(DefaultFree, DefaultRatio*int64(len(coded)+sourceBuffer))+1<<20 {
				t.Errorf("%v: %d coded bytes became %d, %v", stack, len(coded), n, err)
			}
		}
	})
}

// A stage whose output vanishes in the next one is a bomb all the same.
func TestHiddenBomb(t *testing.T) {
	nothing := encode(t, "", "gzip")
	coded := encode(t, strings.Repeat(nothing, 64<<20/len(nothing)), "zstd")
	if _, err := decode(strings.NewReader(coded), Limits{}, "gzip", "zstd"); !errors.Is(err, ErrExpansion) {
		t.Errorf("%d coded bytes: %v", len(coded), err)
	}
}

func TestLimits(t *testing.T) {
	each(t, func(t *testing.T, c string) {
		coded := encode(t, sample, c)
		size := int64(len(sample))
		if _, err := decode(strings.NewReader(coded), Limits{Max: size}, c); err != nil {
			t.Errorf("at the maximum: %v", err)
		}
		if _, err := decode(strings.NewReader(coded), Limits{Max: size - 1}, c); !errors.Is(err, ErrExpansion) {
			t.Errorf("above the maximum: %v", err)
		}
		if _, err := decode(strings.NewReader(coded), Limits{Ratio: 2, Free: 1000}, c); !errors.Is(err, ErrExpansion) {
			t.Errorf("above the ratio: %v", err)
		}
	})
	if _, err := decode(strings.NewReader("123"), Limits{Max: 2}); !errors.Is(err, ErrExpansion) {
		t.Errorf("identity above the maximum: %v", err)
	}
}

type budget struct{ left, least int64 }

func (b *budget) Take(n int64) bool {
	if n > b.left {
		return false
	}
	b.left -= n
	b.least = min(b.least, b.left)
	return true
}
func (b *budget) Give(n int64) { b.left += n }

// Memory is taken before it is used and given back at the end, at an error,
// and by Close.
func TestBudget(t *testing.T) {
	each(t, func(t *testing.T, c string) {
		coded := encode(t, sample, c)
		const all = 64 << 20
		for name, read := range map[string]func(io.ReadCloser){
			"end":   func(d io.ReadCloser) { io.Copy(io.Discard, d) },
			"close": func(d io.ReadCloser) { d.Read(make([]byte, 10)); d.Close(); d.Close() },
		} {
			b := &budget{all, all}
			d, _ := NewReader(strings.NewReader(coded), []string{c}, Limits{Budget: b})
			read(d)
			if b.least == all || b.left != all {
				t.Errorf("%s: %d bytes were taken, %d are missing", name, all-b.least, all-b.left)
			}
		}
		b := &budget{all, all}
		if _, err := decode(strings.NewReader(coded[:len(coded)-1]), Limits{Budget: b}, c); err == nil || b.left != all {
			t.Errorf("damaged: %v, %d bytes are missing", err, all-b.left)
		}
		if _, err := decode(strings.NewReader(coded), Limits{Budget: new(budget)}, c); !errors.Is(err, ErrMemory) {
			t.Errorf("without memory: %v", err)
		}
	})
}

// Windows above the limit are refused before anything is allocated for them.
func TestWindow(t *testing.T) {
	text := strings.Repeat(sample, 100)
	var wide, huge bytes.Buffer
	w := brotli.NewWriterOptions(&wide, brotli.WriterOptions{Quality: 2, LGWin: 24})
	io.WriteString(w, text)
	w.Close()
	z, _ := zstd.NewWriter(&huge, zstd.WithWindowSize(16<<20), zstd.WithEncoderConcurrency(1))
	io.WriteString(z, text)
	z.Close()
	for coding, coded := range map[string]string{"br": wide.String(), "zstd": huge.String()} {
		if _, err := decode(strings.NewReader(coded), Limits{Ratio: 1 << 40}, coding); !errors.Is(err, ErrExpansion) {
			t.Errorf("%s: %v", coding, err)
		}
	}
	// A later frame cannot ask for what the first did not.
	coded := encode(t, "small", "zstd") + huge.String()
	if _, err := decode(strings.NewReader(coded), Limits{Ratio: 1 << 40}, "zstd"); !errors.Is(err, ErrDamaged) {
		t.Errorf("second frame: %v", err)
	}
}

func TestBrotliWindow(t *testing.T) {
	for bits := 10; bits <= 24; bits++ {
		var b bytes.Buffer
		w := brotli.NewWriterOptions(&b, brotli.WriterOptions{Quality: 1, LGWin: bits})
		io.WriteString(w, sample)
		w.Close()
		if got := brotliWindow(b.Bytes()[0]); got < bits || got > max(bits, 18) {
			t.Errorf("%d bits are read as %d", bits, got)
		}
	}
}

// What a decoder really uses is what it takes.
func TestMemory(t *testing.T) {
	text := make([]byte, 24<<20)
	for i, x := 0, uint32(1); i < len(text); i++ {
		x = x*1664525 + 1013904223
		text[i] = "abcdefghijklmnopqrstuvwxyz012345"[x>>27]
	}
	var br, zs bytes.Buffer
	w := brotli.NewWriterOptions(&br, brotli.WriterOptions{Quality: 2, LGWin: 23})
	w.Write(text)
	w.Close()
	z, _ := zstd.NewWriter(&zs, zstd.WithWindowSize(8<<20), zstd.WithEncoderConcurrency(1))
	z.Write(text)
	z.Close()
	for coding, coded := range map[string][]byte{"br": br.Bytes(), "zstd": zs.Bytes(), "gzip": []byte(encode(t, string(text), "gzip"))} {
		b := &budget{1 << 30, 1 << 30}
		before := heap()
		d, _ := NewReader(bytes.NewReader(coded), []string{coding}, Limits{Budget: b})
		if _, err := io.CopyN(io.Discard, d, 20<<20); err != nil {
			t.Fatal(err)
		}
		used, taken := int64(heap()-before), 1<<30-b.left
		t.Logf("%s uses %d KiB and takes %d", coding, used>>10, taken>>10)
		if used > taken {
			t.Errorf("%s uses %d KiB and takes %d", coding, used>>10, taken>>10)
		}
		d.Close()
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Decoders that are closed leave no coroutine behind.
func TestNoGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	coded := encode(t, sample, "zstd")
	for range 100 {
		d, _ := NewReader(strings.NewReader(coded), []string{"zstd"}, Limits{})
		d.Read(make([]byte, 10))
		d.Close()
	}
	if n := runtime.NumGoroutine(); n > before+2 {
		t.Errorf("%d goroutines became %d", before, n)
	}
}
