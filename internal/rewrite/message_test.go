package rewrite

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/cutoutdev/cutout/internal/secret"
)

// marking writes <NAME ENCODING> for what it swaps and notes the rest.
func marking(f *Finder, found *[]string, swap string) Body {
	return Body{
		Swap: func(s *secret.Secret) bool { return strings.Contains(swap, s.Name) },
		Seal: func(parts []secret.Part, enc secret.Encoding) (string, error) {
			i := slices.IndexFunc(f.secrets, func(s *secret.Secret) bool { return s.Value == parts[0].Value })
			return fmt.Sprintf("<%s %v>", f.secrets[i].Name, enc == secret.JSON), nil
		},
		Found: func(o Occurrence, swapped bool) error {
			if !swapped {
				*found = append(*found, o.Secret.Name)
			}
			return nil
		},
	}
}

func messageFinder(t testing.TB) *Finder {
	st := newStore(t)
	return NewFinder([]*secret.Secret{
		{Name: "A", Placeholder: "$MSB_KEY_A", Value: load(t, st, "value-of-a")},
		{Name: "B", Placeholder: "$MSB_KEY_AB", Value: load(t, st, "value-of-b")},
		{Name: "C", Placeholder: "\\\"kéy€𝄞/", Value: load(t, st, "value-of-c")},
	})
}

// escaped writes some of s as escapes of JSON.
func escaped(s string, some func(rune) bool) string {
	var b strings.Builder
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case !some(c):
			b.WriteRune(c)
		case c == '/':
			b.WriteString(`\/`)
		case c > 0xffff:
			fmt.Fprintf(&b, `\u%04x\u%04X`, 0xd800+(c-0x10000)>>10, 0xdc00+(c-0x10000)&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04X`, c)
		}
	}
	return b.String()
}

func TestMessage(t *testing.T) {
	f := messageFinder(t)
	all := func(rune) bool { return true }
	for _, tt := range []struct{ text, swap, want, found string }{
		{"plain", "AB", "plain", ""},
		{"a $MSB_KEY_A b", "AB", "a <A false> b", ""},
		{"a $MSB_KEY_AB b", "AB", "a <B false> b", ""},
		{"a $MSB_KEY_AB b", "A", "a $MSB_KEY_AB b", "B"},
		{"$MSB_KEY_A", "A", "<A false>", ""},
		{"$MSB_KEY", "A", "$MSB_KEY", ""},
		{`"\u0024MSB_KEY_A"`, "A", `"\u0024MSB_KEY_A"`, ""}, // plain text, whatever it looks like
		{`{"a":"$MSB_KEY_A"}`, "A", `{"a":"<A true>"}`, ""},
		{` [ "` + escaped("$MSB_KEY_A", all) + `" ]`, "A", ` [ "<A true>" ]`, ""},
		{`{"a":"` + escaped("$MSB_KEY_A", all) + `"}`, "", `{"a":"` + escaped("$MSB_KEY_A", all) + `"}`, "A"},
		{`{"\\$MSB_KEY_A\\u0024MSB_KEY_A"`, "A", `{"\\<A true>\\u0024MSB_KEY_A"`, ""},
		{`{"` + escaped("\\\"kéy€𝄞/", all) + `"`, "C", `{"<C true>"`, ""},
		{`{"` + escaped("\\\"kéy€𝄞/", func(c rune) bool { return c < 0x80 }) + `"`, "C", `{"<C true>"`, ""},
		{`{"\u00","\ud834","\ud834\u0024MSB_KEY_A"`, "A", `{"\u00","\ud834","\ud834<A true>"`, ""},
		{`{"\u0024MSB_KEY_\u0041`, "A", `{"<A true>`, ""},
		{`{"\u0024MSB_KEY_\u004`, "A", `{"\u0024MSB_KEY_\u004`, ""},
		{`{\`, "A", `{\`, ""},
		{"", "A", "", ""},
		{" \n", "A", " \n", ""},
	} {
		for name, r := range map[string]io.Reader{
			"whole": strings.NewReader(tt.text), "bytes": iotest.OneByteReader(strings.NewReader(tt.text)), "error": iotest.DataErrReader(strings.NewReader(tt.text)),
		} {
			var found []string
			got, err := io.ReadAll(f.Message(r, marking(f, &found, tt.swap)))
			if err != nil || string(got) != tt.want || strings.Join(found, "") != tt.found {
				t.Errorf("%q, %s: %q %q %v, want %q %q", tt.text, name, got, found, err, tt.want, tt.found)
			}
		}
	}
}

// What the other side decodes is what was meant, whichever way the guest has
// escaped it.
func TestMessageJSON(t *testing.T) {
	f := messageFinder(t)
	for range 3000 {
		some := func(rune) bool { return rand.IntN(3) == 0 }
		text := fmt.Sprintf(`{"x\\":"%s","%s":["%s"]}`, escaped("né \\$MSB_KEY_A\"", some), escaped("$MSB_KEY_AB", some), escaped("a\\\"kéy€𝄞/𝄞", some))
		var r io.Reader = iotest.OneByteReader(strings.NewReader(text))
		if rand.IntN(2) == 0 {
			r = iotest.HalfReader(strings.NewReader(text))
		}
		var found []string
		got, err := io.ReadAll(f.Message(r, marking(f, &found, "ABC")))
		var plain map[string]any
		if err != nil || json.Unmarshal(got, &plain) != nil {
			t.Fatalf("%s becomes %s, %v", text, got, err)
		}
		if want := map[string]any{`x\`: "né \\<A true>\"", "<B true>": []any{"a<C true>𝄞"}}; fmt.Sprint(plain) != fmt.Sprint(want) {
			t.Fatalf("%s becomes %v, want %v", text, plain, want)
		}
	}
}

func TestMessageErrors(t *testing.T) {
	f := messageFinder(t)
	no := errors.New("no")
	m := marking(f, new([]string), "A")
	m.Found = func(_ Occurrence, swapped bool) error {
		if swapped {
			return nil
		}
		return no
	}
	got, err := io.ReadAll(f.Message(strings.NewReader("a $MSB_KEY_A b $MSB_KEY_AB c"), m))
	if err != no || strings.Contains(string(got), " c") {
		t.Errorf("%q, %v", got, err)
	}
	_, err = io.ReadAll(f.Message(strings.NewReader(strings.Repeat("$MSB_KEY_A", MaxMessageOccurrences+1)), marking(f, new([]string), "A")))
	if r := new(Refusal); !errors.As(err, &r) || r.Reason != TooMany || r.Secret.Name != "A" {
		t.Error(err)
	}
	_, err = io.ReadAll(f.Message(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("ab"))), m))
	if err != iotest.ErrTimeout {
		t.Error(err)
	}
}

// Only what may begin a placeholder is held back.
func TestMessageLive(t *testing.T) {
	f := messageFinder(t)
	pr, pw := io.Pipe()
	r := f.Message(pr, marking(f, new([]string), "A"))
	buf := make([]byte, 100)
	said, want := []string{`{"a`, `b$MSB`, `x\u00`, `24MSB_KEY_A`, `-`}, []string{`{"a`, `b`, `$MSBx`, `<A true>-`}
	go func() {
		for _, s := range said {
			io.WriteString(pw, s)
		}
		pw.Close()
	}()
	for _, s := range want {
		n, err := r.Read(buf)
		if err != nil || string(buf[:n]) != s {
			t.Errorf("got %q, %v, want %q", buf[:n], err, s)
		}
	}
}

// FuzzMessage: any split gives the same, and what is not swapped is not
// changed.
func FuzzMessage(f *testing.F) {
	finder := messageFinder(f)
	for _, s := range []string{`{"a":"\u0024MSB_KEY_A"}`, "$MSB_KEY_AB$MSB_KEY_A", `[\ud834\udd1e\u005c\u0022k\u00e9y€𝄞\/`, `{\\u0024MSB_KEY_A`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var found, again []string
		whole, err := io.ReadAll(finder.Message(strings.NewReader(text), marking(finder, &found, "AC")))
		split, err2 := io.ReadAll(finder.Message(iotest.OneByteReader(strings.NewReader(text)), marking(finder, &again, "AC")))
		if string(whole) != string(split) || err != err2 || fmt.Sprint(found) != fmt.Sprint(again) {
			t.Errorf("whole %q %v, split %q %v", whole, err, split, err2)
		}
		if same, err := io.ReadAll(finder.Message(strings.NewReader(text), marking(finder, &found, ""))); err != nil || string(same) != text {
			t.Errorf("%q became %q, %v", text, same, err)
		}
	})
}

func BenchmarkMessage(b *testing.B) {
	f := messageFinder(b)
	for name, unit := range map[string]string{"plain": "some text of a message. ", "escapes": `{"a\n":"\u00e9 text"} `} {
		text := "{" + strings.Repeat(unit, 1<<20/len(unit))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			src, buf := strings.NewReader(text), make([]byte, 16<<10)
			for b.Loop() {
				src.Reset(text)
				r := f.Message(src, marking(f, new([]string), ""))
				for {
					if _, err := r.Read(buf); err != nil {
						break
					}
				}
			}
		})
	}
}
