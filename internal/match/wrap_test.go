package match

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// slowWrapped is the obvious search for needles that may be wrapped: a break
// at any place is found, if MinLine letters precede it since the last one.
func slowWrapped(needles []string, text string) []Hit {
	brk := regexp.MustCompile(`^(?:\r\n|\n|\\r\\n|\\n)`)
	length := func(needle, text string) int {
		at, line := 0, MinLine
		for i := 0; i < len(needle); {
			b := len(brk.FindString(text[at:]))
			switch {
			case at < len(text) && text[at] == needle[i]:
				at, i, line = at+1, i+1, line+1
			case b > 0 && i >= minStart && line >= MinLine:
				at, line = at+b, 0
			default:
				return 0
			}
		}
		return at
	}
	var hits []Hit
	for at := 0; at < len(text); {
		best := Hit{ID: -1}
		for id, n := range needles {
			if l := length(n, text[at:]); l > 0 && (best.ID < 0 || at+l > best.End) {
				best = Hit{Start: at, End: at + l, ID: id}
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

// TestWrapped: needles of Base64 are found wherever there is a break in them,
// however the text is split, and no others.
func TestWrapped(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	word := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "ABn+"[rng.IntN(4)]
		}
		return string(b)
	}
	found := 0
	for range 1000 {
		needles := make([]string, 1+rng.IntN(4))
		list := make([]Needle, len(needles))
		for i := range needles {
			needles[i] = word(10 + rng.IntN(120))
			list[i] = Needle{Len: len(needles[i]), Wrap: true}
		}
		m := Build(make([]byte, SizeOf(list)), list, func(i int, dst []byte) { copy(dst, needles[i]) })
		var b strings.Builder
		brk, line := breaks[rng.IntN(len(breaks))], []int{20, 32, 33, 64, 76}[rng.IntN(5)]
		all := word(rng.IntN(80))
		for range 3 {
			all += needles[rng.IntN(len(needles))] + word(rng.IntN(5))
		}
		for i := range len(all) {
			if i%line == line-1 {
				b.WriteString(brk)
			}
			b.WriteByte(all[i])
		}
		text := b.String()
		want := slowWrapped(needles, text)
		found += len(want)
		got := search(t, m, text, []byte{byte(rng.IntN(64)), byte(rng.IntN(8))})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("needles %q text %q (-want +got):\n%s", needles, text, diff)
		}
	}
	if found < 1000 {
		t.Errorf("only %d hits", found)
	}
}
