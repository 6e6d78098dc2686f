package match

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func newMatcher(needles ...string) *Matcher {
	lens := make([]int, len(needles))
	for i, s := range needles {
		lens[i] = len(s)
	}
	return New(make([]byte, Size(lens)), lens, func(i int, dst []byte) { copy(dst, needles[i]) })
}

// slow is the obvious search that the matcher must agree with.
func slow(needles []string, text string) []Hit {
	var hits []Hit
	for at := 0; at < len(text); {
		best := Hit{ID: -1}
		for id, n := range needles {
			if strings.HasPrefix(text[at:], n) && (best.ID < 0 || len(n) > best.End-best.Start) {
				best = Hit{Start: at, End: at + len(n), ID: id}
			}
		}
		if best.ID < 0 {
			at++
			continue
		}
		hits = append(hits, best)
		at = best.End
	}
	return hits
}

// search feeds text in pieces of the given sizes, repeated, as a stream does.
func search(t *testing.T, m *Matcher, text string, sizes []byte) []Hit {
	t.Helper()
	var hits []Hit
	var buf []byte
	base := 0 // of buf in text
	for i := 0; ; i++ {
		size := len(text)
		if len(sizes) > 0 {
			size = int(sizes[i%len(sizes)])%64 + 1
		}
		size = min(size, len(text)-base-len(buf))
		buf = append(buf, text[base+len(buf):base+len(buf)+size]...)
		final := base+len(buf) == len(text)
		for {
			h, clear, ok := m.Next(buf, final)
			if !ok {
				buf, base = buf[clear:], base+clear
				break
			}
			hits = append(hits, Hit{h.Start + base, h.End + base, h.ID})
			buf, base = buf[h.End:], base+h.End
		}
		if len(buf) >= max(m.Longest(), 1) && !final {
			t.Fatalf("%d bytes held back, longest needle has %d", len(buf), m.Longest())
		}
		if final {
			if len(buf) != 0 {
				t.Fatalf("%d bytes left at the end", len(buf))
			}
			return hits
		}
	}
}

func TestNext(t *testing.T) {
	tests := []struct {
		name    string
		needles []string
		text    string
		want    []Hit
	}{
		{"none", nil, "anything", nil},
		{"whole", []string{"needle"}, "needle", []Hit{{0, 6, 0}}},
		{"leftmost", []string{"bcdefg", "cdef"}, "xbcdefgx", []Hit{{1, 7, 0}}},
		{"longest", []string{"abcd", "abcdef"}, "xabcdefx", []Hit{{1, 7, 1}}},
		{"not the longest", []string{"abcd", "abcdef"}, "xabcdexx", []Hit{{1, 5, 0}}},
		{"first of equals", []string{"abcd", "abcd"}, "abcd", []Hit{{0, 4, 0}}},
		{"adjacent", []string{"abcd"}, "abcdabcd", []Hit{{0, 4, 0}, {4, 8, 0}}},
		{"overlapping itself", []string{"aaaa"}, "aaaaaa", []Hit{{0, 4, 0}}},
		{"cut at the end", []string{"abcdef"}, "xxabcde", nil},
		{"near miss then hit", []string{"ababac"}, "ababababac", []Hit{{4, 10, 0}}},
		{"long", []string{strings.Repeat("k", 3000) + "x"}, strings.Repeat("k", 5000) + "x", []Hit{{2000, 5001, 0}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMatcher(tt.needles...)
			for _, sizes := range [][]byte{nil, {0}, {1}, {4, 0, 9}} {
				if diff := cmp.Diff(tt.want, search(t, m, tt.text, sizes)); diff != "" {
					t.Errorf("sizes %v (-want +got):\n%s", sizes, diff)
				}
			}
		})
	}
}

// TestGrams: grams that differ are told apart, whatever their size, or the
// search finds everything and is slow.
func TestGrams(t *testing.T) {
	for size, needles := range map[int][]string{
		4: {"$MSB_A_0001", "$MSB_A_0002"},
		7: {"$MSB_SERVICE_A", "$MSB_SERVICE_B"},
		8: {"$MSB_SERVICE_01_TOKEN", "$MSB_SERVICE_02_TOKEN"},
	} {
		m := newMatcher(needles...)
		if m.gram != size {
			t.Errorf("%q are searched by %d bytes, want %d", needles, m.gram, size)
		}
		hashes := map[uint32]bool{}
		for i := range 1000 {
			hashes[m.hash(fmt.Appendf(nil, "%03d_TOKEN", i), 0)] = true
		}
		if len(hashes) < 950 {
			t.Errorf("1000 grams of %d bytes have %d hashes", size, len(hashes))
		}
	}
}

func TestFormatPrintsNoNeedle(t *testing.T) {
	m := newMatcher("topsecret")
	for _, s := range []string{fmt.Sprint(m), fmt.Sprintf("%#v", m), fmt.Sprintf("%x", m)} {
		if s != "matcher of 1" {
			t.Errorf("printed %q", s)
		}
	}
}

// FuzzNext compares any needles over a small alphabet, on any text and
// split, with the obvious search.
func FuzzNext(f *testing.F) {
	f.Add("abca bcab aabb", "abcabcaabbxabca", []byte{1, 2})
	f.Add("aaaa aaaaaaaa", "aaaaaaaaaaaaaaaaaaaa", []byte{0})
	f.Add("$MSB_A $MSB_AB $MSB_ABC", "$MSB_AB$MSB_$MSB_ABC", []byte{3})
	f.Fuzz(func(t *testing.T, list, text string, sizes []byte) {
		var needles []string
		for n := range strings.FieldsSeq(list) {
			if len(n) >= Shortest && len(needles) < 40 {
				needles = append(needles, n)
			}
		}
		got := search(t, newMatcher(needles...), text, sizes)
		if diff := cmp.Diff(slow(needles, text), got); diff != "" {
			t.Errorf("needles %q text %q (-want +got):\n%s", needles, text, diff)
		}
	})
}

func TestNextRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	word := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "ab"[rng.IntN(2)]
		}
		return string(b)
	}
	for range 3000 {
		needles := make([]string, 1+rng.IntN(6))
		for i := range needles {
			needles[i] = word(Shortest + rng.IntN(20))
		}
		text := word(rng.IntN(200))
		for range 3 { // make hits of long needles likely
			at := rng.IntN(len(text) + 1)
			text = text[:at] + needles[rng.IntN(len(needles))] + text[at:]
		}
		got := search(t, newMatcher(needles...), text, []byte{byte(rng.IntN(64)), byte(rng.IntN(8))})
		if diff := cmp.Diff(slow(needles, text), got); diff != "" {
			t.Fatalf("needles %q text %q (-want +got):\n%s", needles, text, diff)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, 1<<20)
	for i := range text {
		text[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[rng.IntN(64)]
	}
	for _, n := range []int{1, 8, 56, 160} {
		var needles []string
		for i := range n {
			needles = append(needles, fmt.Sprintf("%c%c%08x%s", 'A'+i%26, 'a'+i/26, rng.Uint32(), strings.Repeat("q", 30)))
		}
		m := newMatcher(needles...)
		b.Run(fmt.Sprintf("needles=%d", n), func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if _, _, ok := m.Next(text, true); ok {
					b.Fatal("hit")
				}
			}
		})
	}
	b.Run("bytes.Contains", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			bytes.Contains(text, []byte("Aa01234567qqqqqq"))
		}
	})
}
