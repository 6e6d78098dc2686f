package coding

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

var names = []string{"gzip", "deflate", "br", "zstd"}

// pieces returns its text in reads of the lengths that the bytes of cut give.
type pieces struct {
	text []byte
	cut  []byte
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.text) == 0 {
		return 0, io.EOF
	}
	n := len(p.text)
	if len(p.cut) > 0 {
		n, p.cut = int(p.cut[0])%7+1, p.cut[1:]
	}
	n = copy(b, p.text[:min(n, len(p.text))])
	p.text = p.text[n:]
	return n, nil
}

// Whatever is decoded, and however it is split, the result is the same, is
// bounded, and memory is given back.
func FuzzDecode(f *testing.F) {
	for i, c := range names {
		f.Add([]byte(encode(f, "text, text and text", c)), uint8(i), uint8(4), []byte{0, 1, 2})
		f.Add([]byte(encode(f, "text, text and text", c, "gzip")), uint8(i), uint8(0), []byte{5})
	}
	f.Add([]byte(bare("bare")), uint8(1), uint8(4), []byte{})
	f.Fuzz(func(t *testing.T, coded []byte, inner, outer uint8, cut []byte) {
		codings := []string{names[inner%4]}
		if outer < 4 {
			codings = append(codings, names[outer])
		}
		const all = 1 << 30
		b := &budget{all, all}
		l := Limits{Ratio: 20, Free: 1 << 16, Max: 1 << 20, Budget: b}
		whole, err := decode(bytes.NewReader(coded), l, codings...)
		split, err2 := decode(&pieces{coded, cut}, l, codings...)
		if (err == nil) != (err2 == nil) || err == nil && whole != split {
			t.Fatalf("whole: %d bytes, %v; split: %d bytes, %v", len(whole), err, len(split), err2)
		}
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrExpansion) {
			t.Fatalf("error is %v", err)
		}
		if len(whole) > 1<<20 || b.left != all {
			t.Fatalf("%d bytes, %d of the budget are missing", len(whole), all-b.left)
		}
	})
}

// What was encoded comes out, and no proper part of it does.
func FuzzRoundTrip(f *testing.F) {
	f.Add("some text", uint8(0), []byte{1}, uint16(3))
	f.Add(strings.Repeat("ab", 5000), uint8(3), []byte{0, 0, 0, 9}, uint16(20))
	f.Fuzz(func(t *testing.T, text string, c uint8, cut []byte, short uint16) {
		coding := names[c%4]
		coded := encode(t, text, coding)
		if got, err := decode(&pieces{[]byte(coded), cut}, Limits{Ratio: 1 << 30}, coding); got != text || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		if n := int(short); 0 < n && n < len(coded) {
			if _, err := decode(strings.NewReader(coded[:n]), Limits{Ratio: 1 << 30}, coding); err == nil {
				t.Fatalf("%d of %d bytes were enough", n, len(coded))
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	text := strings.Repeat(`{"id":12345,"name":"some name","tags":["a","b"],"score":0.25},`, 1<<14)
	for _, c := range names {
		coded := encode(b, text, c)
		b.Run(c, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				d, _ := NewReader(strings.NewReader(coded), []string{c}, Limits{Ratio: 1 << 30})
				if n, err := io.Copy(io.Discard, d); n != int64(len(text)) || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}
