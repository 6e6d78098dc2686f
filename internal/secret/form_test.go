package secret

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// kinds are texts that differ in how many spellings they have and how long
// those are.
var kinds = map[string]string{
	"letters":     "sk0live1Abcd2EFGH3jklm",
	"same letter": "a",
	"punctuation": "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
	"quotes":      "\"",
	"apostrophes": "'",
	"ampersands":  "&",
	"brackets":    "<>",
	"slashes":     "/",
	"spaces":      "a ",
	"controls":    "\x01\x1f",
	"two bytes":   "\u00e9",
	"three bytes": "\u20ac",
	"four bytes":  "\U0001f511",
	"no UTF-8":    "\xff\xfb",
	"mixed":       "\x01\"\u00e9% \\<&'",
	"worst":       "\"'\u00e9&<",
}

// TestRoom: what Room gives is enough for the needles of any values, in the
// set that is there and in the one that takes its place.
func TestRoom(t *testing.T) {
	for name, text := range kinds {
		for _, size := range []int{MinValue, 100, maxFull, maxFull + 1, MaxValue} {
			for _, n := range []int{1, 8} {
				if size == MaxValue && n > 1 {
					continue // more than may be locked
				}
				t.Run(fmt.Sprintf("%s %d*%d", name, n, size), func(t *testing.T) {
					lens := make([]int, n)
					for i := range lens {
						lens[i] = size
					}
					st, err := NewStore(Room(lens))
					if err != nil {
						t.Fatal(err)
					}
					defer st.Close()
					var list []*Secret
					for i := range n {
						// Each begins elsewhere, so that they differ.
						v := strings.Repeat(text, size/len(text)+2)[i%len(text):][:size]
						list = append(list, &Secret{Name: fmt.Sprint("K", i), Placeholder: fmt.Sprint("$MSB_K", i), Value: load(t, st, v)})
					}
					used, per := 0, 0.0
					for range 2 {
						needles, err := NewNeedles(list)
						if err != nil {
							t.Fatal(err)
						}
						defer runtime.KeepAlive(needles)
						last := st.blocks[len(st.blocks)-1]
						used, per = last.off+last.n, float64(last.n)/float64(n*size)
					}
					t.Logf("%d of %d bytes used, %.1f per byte of value in one set", used, st.limit, per)
				})
			}
		}
	}
}
