package rewrite

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/secret"
)

// overwrite sends records through an Overwriter in pieces and returns what
// has come out by the end of each record.
func overwrite(t *testing.T, s *Scrubber, records []string, piece int) (out []string, err error) {
	t.Helper()
	o := s.Overwriter(func(*secret.Secret) {})
	for i, r := range records {
		var got []byte
		for {
			n := min(piece, len(r))
			end := n == len(r)
			if got, err = o.Append(got, []byte(r[:n]), end, end && i == len(records)-1); err != nil {
				return append(out, string(got)), err
			}
			if r = r[n:]; end {
				break
			}
		}
		out = append(out, string(got))
	}
	return out, nil
}

func TestOverwriter(t *testing.T) {
	const value, placeholder = "s3cretvalue-0001", "$MSB_API_KEY"
	s := overwriting(t, placeholder, value)
	hidden := placeholder + "****"
	for name, tt := range map[string]struct {
		records, want []string
		err           error
	}{
		"within":          {[]string{"a " + value + " b", "c"}, []string{"a " + hidden + " b", "c"}, nil},
		"one whole":       {[]string{value, value}, []string{hidden, hidden}, nil},
		"chance":          {[]string{"ends in s3c", "then", "s3c"}, []string{"ends in s3c", "then", "s3c"}, nil},
		"chance again":    {[]string{"s", "s", "s3", "s"}, []string{"s", "s", "s3", "s"}, nil},
		"no chance":       {[]string{"ends in s3cretv", "then"}, []string{"ends in ", "s3cretvthen"}, nil},
		"across, late":    {[]string{"s3cretvalue-", "0001 b"}, []string{"", hidden + " b"}, nil},
		"across, early":   {[]string{"s3c", "retvalue-0001 b"}, []string{"s3c"}, ErrAcross},
		"across three":    {[]string{"s3", "c", "retvalue-0001"}, []string{"s3", "c"}, ErrAcross},
		"empty records":   {[]string{"", value, ""}, []string{"", hidden, ""}, nil},
		"held at the end": {[]string{"s3cretvalue"}, []string{"s3cretvalue"}, nil},
	} {
		for _, piece := range []int{1, 2, 5, 100} {
			got, err := overwrite(t, s, tt.records, piece)
			if !errors.Is(err, tt.err) {
				t.Errorf("%s in pieces of %d: %v", name, piece, err)
			}
			if err != nil {
				got = got[:len(tt.want)]
			}
			if strings.Join(got, "|") != strings.Join(tt.want, "|") {
				t.Errorf("%s in pieces of %d: %q, want %q", name, piece, got, tt.want)
			}
		}
	}
}

// Whatever the records are: of a value at most its first three bytes pass.
func TestOverwriterNeverGivesAway(t *testing.T) {
	const value = "s3cretvalue-0001"
	s := overwriting(t, "$MSB_API_KEY", value)
	for range 20_000 {
		text := "ab" + value + "cd"
		var records []string
		for text != "" {
			n := 1 + rand.IntN(len(text))
			records = append(records, text[:n])
			text = text[n:]
		}
		got, _ := overwrite(t, s, records, 1+rand.IntN(20))
		if all := strings.Join(got, ""); strings.Contains(all, value[:unlikely]) {
			t.Fatalf("records %q give %q", records, got)
		}
	}
}

func TestScrubBytes(t *testing.T) {
	s := overwriting(t, "$MSB_API_KEY", "s3cretvalue-0001")
	b := []byte("\x10s3cretvalue-0001\xff")
	if n := s.Bytes(b); n != 1 || string(b) != "\x10$MSB_API_KEY****\xff" {
		t.Errorf("%d hits: %q", n, b)
	}
	s.Close()
	if s.Bytes(b); strings.Trim(string(b), "\x00") != "" {
		t.Errorf("a closed store leaves %q", b)
	}
}

func BenchmarkOverwriter(b *testing.B) {
	s := overwriting(b, "$MSB_API_KEY", "s3cretvalue-0001")
	o := s.Overwriter(func(*secret.Secret) {})
	p := []byte(strings.Repeat("some text of a message. ", 700))[:16<<10]
	out := make([]byte, 0, 20<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		o.Append(out, p, true, false)
	}
}

func overwriting(t testing.TB, placeholder, value string) *Scrubber {
	t.Helper()
	s, err := NewScrubber([]*secret.Secret{{Name: "A", Placeholder: placeholder, Value: load(t, newStore(t), value)}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
