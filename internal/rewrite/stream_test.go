package rewrite

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/cutoutdev/cutout/internal/secret"
)

// A slicer is a reader that gives text in pieces of the given sizes.
type slicer struct {
	text  string
	sizes []byte
	i     int
	err   error // at the end, instead of EOF
	early bool  // end together with the last bytes
}

func (s *slicer) Read(p []byte) (int, error) {
	end := s.err
	if end == nil {
		end = io.EOF
	}
	if s.text == "" {
		return 0, end
	}
	n := len(s.text)
	if len(s.sizes) > 0 {
		n = min(n, int(s.sizes[s.i%len(s.sizes)])+1)
		s.i++
	}
	n = copy(p, s.text[:n])
	s.text = s.text[n:]
	if s.text == "" && s.early {
		return n, end
	}
	return n, nil
}

// readAll reads with buffers of the given sizes.
func readAll(r io.Reader, sizes []byte) (string, error) {
	var out []byte
	for i := 0; ; i++ {
		n := 4096
		if len(sizes) > 0 {
			n = 1 + 4*int(sizes[i%len(sizes)])
		}
		buf := make([]byte, n)
		n, err := r.Read(buf)
		out = append(out, buf[:n]...)
		if err == io.EOF {
			return string(out), nil
		}
		if err != nil {
			return string(out), err
		}
	}
}

// slowForms are the obvious needles and replacements: encodings with every
// kind of neighbour, cut to the letters that do not depend on it.
func slowForms(list []*secret.Secret, values []string, keep bool) (needles, repl []string, of []*secret.Secret) {
	stable := func(enc *base64.Encoding, shift int, v string) string {
		a := enc.EncodeToString([]byte(strings.Repeat("\x00", shift) + v + "\x00\x00\x00"))
		b := enc.EncodeToString([]byte(strings.Repeat("\xff", shift) + v + "\xff\xff\xff"))
		from, to := 0, len(a)
		for a[from] != b[from] {
			from++
		}
		for i := from; i < to; i++ {
			if a[i] != b[i] {
				to = i
			}
		}
		return a[from:to]
	}
	resize := func(p string, n int) string { return (p + strings.Repeat("*", max(0, n-len(p))))[:n] }
	for i, s := range list {
		v := values[i]
		p, q := s.Placeholder, s.Placeholder
		for (len(q)-len(v))%3 != 0 {
			q += "*"
		}
		if keep {
			p, q = resize(p, len(v)), resize(p, len(v))
		}
		needles, repl, of = append(needles, v), append(repl, p), append(of, s)
		for shift := range 3 {
			for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				needles, repl, of = append(needles, stable(enc, shift, v)), append(repl, stable(enc, shift, q)), append(of, s)
			}
		}
	}
	return
}

// allForms are the needles and replacements of all forms, of which those of
// slowForms must be some.
func allForms(t testing.TB, s *Scrubber, list []*secret.Secret, values []string, keep bool) (needles, repl []string, of []*secret.Secret) {
	want := make(map[string]string)
	for _, f := range s.needles.Forms() {
		r := f.Whole()
		if keep {
			r = f.Kept()
		}
		n := f.Of(values[slices.Index(list, f.Secret)])
		needles, repl, of = append(needles, n), append(repl, r), append(of, f.Secret)
		if _, ok := want[n]; !ok {
			want[n] = r
		}
	}
	seen := make(map[string]bool)
	slow, slowRepl, _ := slowForms(list, values, keep)
	for i, n := range slow {
		if !seen[n] && want[n] != slowRepl[i] {
			t.Errorf("%q becomes %q, want %q", n, want[n], slowRepl[i])
		}
		seen[n] = true
	}
	return
}

func slowScrub(needles, repl []string, text string) (string, []int) {
	var out strings.Builder
	var hits []int
	for at := 0; at < len(text); {
		best := -1
		for i, n := range needles {
			if strings.HasPrefix(text[at:], n) && (best < 0 || len(n) > len(needles[best])) {
				best = i
			}
		}
		if best < 0 {
			out.WriteByte(text[at])
			at++
			continue
		}
		out.WriteString(repl[best])
		hits = append(hits, best)
		at += len(needles[best])
	}
	return out.String(), hits
}

var scrubValues = []string{"s3cretvalue-0001", "s3cretvalue-0001-and-more", "aaaaaaaa", "aaaabaaaa", "\xff\xfe\xfd>>>???~~~", "12345678901"}

func newScrubber(t testing.TB, values ...string) (*Scrubber, []*secret.Secret) {
	t.Helper()
	list := secrets(t, values...)
	s, err := NewScrubber(list)
	if err != nil {
		t.Fatal(err)
	}
	return s, list
}

func TestScrubString(t *testing.T) {
	s, _ := newScrubber(t, "s3cretvalue-0001", "12345678901")
	std, url := base64.StdEncoding, base64.URLEncoding
	tests := []struct {
		name, in, want string
		hits           int
	}{
		{"none", "nothing here", "nothing here", 0},
		{"raw", "a s3cretvalue-0001 b", "a $MSB_KEY_A b", 1},
		{"twice", "s3cretvalue-0001s3cretvalue-0001", "$MSB_KEY_A$MSB_KEY_A", 2},
		{"two secrets", "12345678901,s3cretvalue-0001", "$MSB_KEY_B,$MSB_KEY_A", 2},
		{"all but its end", "s3cretvalue-000", "s3cretvalue-000", 0},
		{"Base64 alone", std.EncodeToString([]byte("12345678901")), "", 1},
		{"Base64 of user:value", std.EncodeToString([]byte("user:s3cretvalue-0001")), "", 1},
		{"URL alphabet", url.EncodeToString([]byte("??>>>us3cretvalue-0001>>>")), "", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, n := s.String(tt.in, nil)
			if n != tt.hits || tt.want != "" && got != tt.want {
				t.Errorf("%q with %d hits, want %q with %d", got, n, tt.want, tt.hits)
			}
			for _, v := range []string{"s3cretvalue-0001", "12345678901"} {
				for _, enc := range []*base64.Encoding{std, url} {
					if plain, err := enc.DecodeString(got); err == nil && strings.Contains(string(plain), v[1:len(v)-1]) {
						t.Errorf("value is left in Base64: %q", plain)
					}
				}
				if strings.Contains(got, v) {
					t.Error("value is left")
				}
			}
		})
	}
}

// TestScrubBase64Alignment: in every alignment, with text of any length after
// it, what follows the placeholder still decodes.
func TestScrubBase64Alignment(t *testing.T) {
	s, _ := newScrubber(t, "s3cretvalue-0001")
	for before := range 5 {
		for after := range 5 {
			for _, keep := range []bool{false, true} {
				plain := "uuuuu"[:before] + "s3cretvalue-0001" + "\x00tail of it"[:after] + "::the rest"
				in := base64.StdEncoding.EncodeToString([]byte(plain))
				out, err := io.ReadAll(s.Reader(strings.NewReader(in), keep, nil))
				if err != nil {
					t.Fatal(err)
				}
				got, err := base64.StdEncoding.DecodeString(string(out))
				if err != nil {
					t.Fatalf("%d before, %d after: %v", before, after, err)
				}
				if !bytes.HasSuffix(got, []byte("::the rest")) || !bytes.Contains(got, []byte("MSB_KEY_")) ||
					bytes.Contains(got, []byte("3cretvalue-000")) {
					t.Errorf("%d before, %d after: %q", before, after, got)
				}
				if keep && len(out) != len(in) {
					t.Errorf("%d bytes became %d", len(in), len(out))
				}
			}
		}
	}
}

func TestScrubHeader(t *testing.T) {
	s, list := newScrubber(t, "s3cretvalue-0001")
	h := http.Header{
		"Set-Cookie": {"a=b", "k=s3cretvalue-0001; Path=/"},
		"Location":   {"https://x.test/?k=s3cretvalue-0001&l=s3cretvalue-0001"},
		"Etag":       {"x"},
		"Echo":       {"Basic " + b64("u:s3cretvalue-0001")},
	}
	n := 0
	s.Header(h, func(x *secret.Secret) {
		if n++; x != list[0] {
			t.Errorf("hit of %v", x)
		}
	})
	if n != 4 {
		t.Errorf("%d hits", n)
	}
	if h["Set-Cookie"][1] != "k=$MSB_KEY_A; Path=/" || h.Get("Location") != "https://x.test/?k=$MSB_KEY_A&l=$MSB_KEY_A" || h.Get("Etag") != "x" {
		t.Errorf("header is %q", h)
	}
	if plain, _ := base64.StdEncoding.DecodeString(h.Get("Echo")[6:]); strings.Contains(string(plain), "cretvalue") {
		t.Errorf("value is left in %q", plain)
	}
}

func TestFind(t *testing.T) {
	s, list := newScrubber(t, "s3cretvalue-0001", "12345678901")
	if got, err := s.Find("curl -H 'A: " + b64("u:12345678901") + "'"); err != nil || got != list[1] {
		t.Errorf("found %v, %v", got, err)
	}
	if got, err := s.Find("nothing"); err != nil || got != nil {
		t.Errorf("found %v, %v", got, err)
	}
}

// TestScrubFailsClosed: without the store nothing is known of a text, so none
// of it comes out.
func TestScrubFailsClosed(t *testing.T) {
	for _, how := range []string{"scrubber closed", "store closed"} {
		t.Run(how, func(t *testing.T) {
			st := newStore(t)
			s, err := NewScrubber([]*secret.Secret{{Name: "A", Placeholder: "$MSB_KEY_A", Value: load(t, st, "s3cretvalue-0001")}})
			if err != nil {
				t.Fatal(err)
			}
			r := s.Reader(&slicer{text: "first s3cretvalue-0001", sizes: []byte{5, 99}}, false, nil)
			buf := make([]byte, 4096)
			if n, err := r.Read(buf); string(buf[:n]) != "first " || err != nil {
				t.Fatalf("read %q, %v", buf[:n], err)
			}
			if how == "store closed" {
				st.Close()
			} else {
				s.Close()
				s.Close()
			}
			if n, err := r.Read(buf); n != 0 || !errors.Is(err, secret.ErrClosed) || bytes.Contains(buf, []byte("s3cret")) {
				t.Errorf("read %q, %v", buf[:n], err)
			}
			if v, _ := s.String("s3cretvalue-0001", nil); v != "" {
				t.Errorf("String gives %q", v)
			}
			h := http.Header{"A": {"s3cretvalue-0001"}}
			if s.Header(h, nil); h.Get("A") != "" {
				t.Errorf("Header gives %q", h)
			}
			if _, err := s.Find("x"); err == nil {
				t.Error("Find succeeds")
			}
		})
	}
}

// TestScrubLive: nothing is held back but what could begin a hit.
func TestScrubLive(t *testing.T) {
	s, _ := newScrubber(t, "s3cretvalue-0001")
	for _, keep := range []bool{false, true} {
		pr, pw := io.Pipe()
		r := s.Reader(pr, keep, nil)
		buf := make([]byte, 4096)
		for _, step := range []struct{ in, want string }{
			{"data: hello\n\n", "data: hello\n\n"},
			{"data: s3cret", "data: "},
			{"data\n\n", "s3cretdata\n\n"},
			{"x s3cretvalue-000", "x "},
			{"1 y", map[bool]string{false: "$MSB_KEY_A y", true: "$MSB_KEY_A****** y"}[keep]},
		} {
			go pw.Write([]byte(step.in))
			if n, err := r.Read(buf); string(buf[:n]) != step.want || err != nil {
				t.Fatalf("after %q read %q, %v; want %q", step.in, buf[:n], err, step.want)
			}
		}
		pw.Close()
	}
}

// TestScrubError: an upstream that breaks off within a value does not get its
// beginning through.
func TestScrubError(t *testing.T) {
	s, _ := newScrubber(t, "s3cretvalue-0001")
	broken := errors.New("broken")
	for _, early := range []bool{false, true} {
		got, err := readAll(s.Reader(&slicer{text: "abc s3cretvalue-000", err: broken, early: early}, false, nil), nil)
		if got != "abc " || err != broken {
			t.Errorf("read %q, %v", got, err)
		}
	}
	if _, err := io.ReadAll(s.Reader(idle{}, false, nil)); err != io.ErrNoProgress {
		t.Errorf("an idle reader gives %v", err)
	}
	if err := iotest.TestReader(s.Reader(strings.NewReader("plain content"), true, nil), []byte("plain content")); err != nil {
		t.Error(err)
	}
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// TestScrubMemory: near misses without end keep nothing.
func TestScrubMemory(t *testing.T) {
	s, _ := newScrubber(t, "s3cretvalue-0001")
	r := s.Reader(io.LimitReader(&cycle{text: "s3cretvalue-000"}, 1<<20), false, nil).(*scrubReader)
	n, err := io.Copy(io.Discard, struct{ io.Reader }{r})
	if n != 1<<20 || err != nil {
		t.Errorf("copied %d, %v", n, err)
	}
	if cap(r.carry) > 1024 || cap(r.own) > 8192 || cap(r.built) > 0 {
		t.Errorf("kept %d, %d, %d bytes", cap(r.carry), cap(r.own), cap(r.built))
	}
}

// A cycle repeats its text for ever.
type cycle struct {
	text string
	at   int
}

func (c *cycle) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = c.text[c.at]
		c.at = (c.at + 1) % len(c.text)
	}
	return len(p), nil
}

// script turns fuzz input into text: bytes 0-31 stand for whole needles, 32-63
// for needles without their last byte, the others for themselves.
func script(in string, needles []string) string {
	var b strings.Builder
	for i := 0; i < len(in); i++ {
		switch c := int(in[i]); {
		case c < 32:
			b.WriteString(needles[c%len(needles)])
		case c < 64:
			n := needles[c%len(needles)]
			b.WriteString(n[:len(n)-1-c%3])
		default:
			b.WriteByte(in[i])
		}
	}
	return b.String()
}

func FuzzScrub(f *testing.F) {
	s, list := newScrubber(f, scrubValues...)
	f.Add("\x00 abc \x07 \x21\x22aaaaaaab", []byte{0, 3}, []byte{1}, true)
	f.Add("\x00\x01\x02\x03\x04\x05", []byte{}, []byte{0, 255}, false)
	f.Add(strings.Repeat("aaaab", 20)+"\x03", []byte{1}, []byte{3}, false)
	f.Fuzz(func(t *testing.T, in string, sizes, rooms []byte, keep bool) {
		parts, _, _ := slowForms(list, scrubValues, keep)
		text := script(in, parts)
		if strings.Contains(text, `\n`) || strings.Contains(text, `\r`) {
			t.Skip("line breaks: see match.TestWrapped")
		}
		needles, repl, of := allForms(t, s, list, scrubValues, keep)
		want, wantHits := slowScrub(needles, repl, text)
		var hits, wanted []string
		for _, i := range wantHits {
			wanted = append(wanted, of[i].Name)
		}
		r := s.Reader(&slicer{text: text, sizes: sizes, early: len(in)%2 == 0}, keep, func(s *secret.Secret) { hits = append(hits, s.Name) })
		got, err := readAll(r, rooms)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("text %q (-want +got):\n%s", text, diff)
		}
		if diff := cmp.Diff(wanted, hits); diff != "" {
			t.Errorf("hits (-want +got):\n%s", diff)
		}
		if !keep {
			if got, n := s.String(text, nil); got != want || n != len(wantHits) {
				t.Errorf("String gives %q, %d", got, n)
			}
		}
	})
}

func FuzzFind(f *testing.F) {
	list := []*secret.Secret{{Name: "A", Placeholder: "$MSB_KEY_A"}, {Name: "AB", Placeholder: "$MSB_KEY_AB"}, {Name: "a", Placeholder: "aaaaaaaa"}, {Name: "b", Placeholder: "aabaaaab"}}
	finder := NewFinder(list)
	var needles []string
	for _, s := range list {
		needles = append(needles, s.Placeholder)
	}
	f.Add("x\x00\x01\x20 \x02", []byte{0})
	f.Add("aaaaaaab\x21\x00", []byte{2, 9})
	f.Fuzz(func(t *testing.T, in string, sizes []byte) {
		text := script(in, needles)
		_, wantHits := slowScrub(needles, needles, text)
		var hits, wanted []string
		for _, i := range wantHits {
			wanted = append(wanted, list[i].Name)
		}
		r := finder.Reader(&slicer{text: text, sizes: sizes, early: len(in)%2 == 0}, func(s *secret.Secret) { hits = append(hits, s.Name) })
		got, err := io.ReadAll(r)
		if err != nil || string(got) != text {
			t.Errorf("carried %q, %v; want %q", got, err, text)
		}
		if diff := cmp.Diff(wanted, hits); diff != "" {
			t.Errorf("text %q: hits (-want +got):\n%s", text, diff)
		}
	})
}

// TestFindInTime: found is called before the last byte of a placeholder is
// returned.
func TestFindInTime(t *testing.T) {
	finder := NewFinder(secrets(t, "s3cretvalue-0001"))
	found := 0
	r := finder.Reader(iotest.OneByteReader(strings.NewReader("x $MSB_KEY_A$MSB_KEY_A y")), func(*secret.Secret) { found++ })
	var got strings.Builder
	buf := make([]byte, 100)
	for {
		n, err := r.Read(buf)
		got.Write(buf[:n])
		if want := strings.Count(got.String(), "$MSB_KEY_A"); found < want {
			t.Fatalf("%d told, %d passed", found, want)
		}
		if err != nil {
			break
		}
	}
	if found != 2 {
		t.Errorf("%d told", found)
	}
}
