package hostname

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/net/publicsuffix"
)

func pattern(t *testing.T, s string) Pattern {
	t.Helper()
	p, err := ParsePattern(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestMatch(t *testing.T) {
	tests := []struct {
		pattern string
		name    Name
		want    bool
	}{
		{"good.test", "good.test", true},
		{"GOOD.test.", "good.test", true},
		{"good.test", "a.good.test", false},
		{"good.test", "xgood.test", false},
		{"good.test", "good.test.evil.test", false},
		{"good.test", "", false},
		{"*.good.test", "a.good.test", true},
		{"*.good.test", "a.b.good.test", true},
		{"*.good.test", "good.test", false},
		{"*.good.test", "xgood.test", false},
		{"*.good.test", ".good.test", false},
		{"*.good.test", "a.good.test.evil.test", false},
		{"*.good.test", "", false},
		{"*.BÜCHER.example", "a.xn--bcher-kva.example", true},
	}
	for _, test := range tests {
		if got := pattern(t, test.pattern).Match(test.name); got != test.want {
			t.Errorf("%s matches %q: %v", test.pattern, test.name, got)
		}
	}
	if (Pattern{}).Match("good.test") || (Pattern{}).Match("") {
		t.Error("the zero pattern matches")
	}
}

// A12.
func TestParsePattern(t *testing.T) {
	for _, s := range []string{
		"", "*", "*.", "*.*", "**.good.test", "*.*.test", "good.*", "a.*.test", "*good.test", "*.good*.test",
		"*.com", "*.test", "*.co.uk", "*.github.io", "*.amazonaws.com", "*.s3.amazonaws.com", "*.core.windows.net",
		"*.blob.core.windows.net", "*.windows.net", "*.compute.amazonaws.com", "*.us-east-1.amazonaws.com", "*.foo.ck", "*.kawasaki.jp",
		"*.x.kawasaki.jp", "*.Amazonaws.COM.", "*.127.0.0.1", "[::1]", "127.0.0.1", "good.test:443", "https://good.test", "*.-.test",
	} {
		if p, err := ParsePattern(s); err == nil {
			t.Errorf("ParsePattern(%q) = %v, want an error", s, p)
		}
	}
	for _, s := range []string{
		"good.test", "com", "github.io", "amazonaws.com", "*.good.test", "*.me.github.io", "*.x.co.uk", "*.www.ck", "*.city.kawasaki.jp",
		"*.my-bucket.s3.amazonaws.com", "*.api.example.com",
	} {
		if p := pattern(t, s); p.String() != s || p.Wildcard() != strings.HasPrefix(s, "*") {
			t.Errorf("ParsePattern(%q) = %v", s, p)
		}
	}
}

func TestOverlaps(t *testing.T) {
	tests := []struct {
		a, b string
		want bool
	}{
		{"good.test", "good.test", true},
		{"good.test", "other.test", false},
		{"*.good.test", "a.good.test", true},
		{"*.good.test", "good.test", false},
		{"*.good.test", "*.a.good.test", true},
		{"*.good.test", "*.good.test", true},
		{"*.good.test", "*.other.test", false},
		{"*.good.test", "*.xgood.test", false},
	}
	for _, test := range tests {
		a, b := pattern(t, test.a), pattern(t, test.b)
		if a.Overlaps(b) != test.want || b.Overlaps(a) != test.want {
			t.Errorf("%v and %v: want %v", a, b, test.want)
		}
	}
}

// TestAny: every name and no other text, and not by accident.
func TestAny(t *testing.T) {
	p := Any()
	if !p.Match("good.test") || p.Match("") || !p.Shared() {
		t.Errorf("%v matches wrongly", p)
	}
	for _, q := range []Pattern{p, pattern(t, "good.test"), pattern(t, "*.good.test")} {
		if !p.Overlaps(q) || !q.Overlaps(p) {
			t.Errorf("%v and %v do not overlap", p, q)
		}
	}
	if p.Overlaps(Pattern{}) || (Pattern{}).Overlaps(p) {
		t.Error("the zero pattern overlaps")
	}
}

// TestPatternText: what goes to the keeper comes back, also what a user had
// to admit by name.
func TestPatternText(t *testing.T) {
	shared, err := ParseShared("*.github.io")
	if err != nil || !shared.Shared() {
		t.Fatalf("got %v, %v", shared, err)
	}
	if _, err := ParsePattern("*.github.io"); !errors.Is(err, ErrShared) {
		t.Errorf("got %v", err)
	}
	for _, p := range []Pattern{Any(), shared, pattern(t, "good.test"), pattern(t, "*.good.test")} {
		text, err := p.MarshalText()
		var again Pattern
		if err != nil || again.UnmarshalText(text) != nil || again != p {
			t.Errorf("%v comes back as %v", p, again)
		}
	}
	var none Pattern
	if none.UnmarshalText(nil) == nil || none.UnmarshalText([]byte("*.*")) == nil {
		t.Error("accepted")
	}
}

// The generated list must be that of the module's version.
func TestSuffixListIsCurrent(t *testing.T) {
	first, _, _ := strings.Cut(suffixText, "\n")
	if want := "# " + publicsuffix.List.String(); first != want {
		t.Errorf("suffix.txt was made of %q, the module has %q: run go generate ./internal/hostname", first, want)
	}
	if n := len(suffixParents()); n < 500 {
		t.Errorf("only %d names have a public suffix below them", n)
	}
}

// FuzzPattern: whatever a wildcard admits is below its base and has one
// owner, the base's.
func FuzzPattern(f *testing.F) {
	f.Add("*.good.test", "a.good.test")
	f.Add("*.b.amazonaws.com", "s3.b.amazonaws.com")
	f.Add("*.ck", "www.ck")
	f.Add("*.cloudfront.net", "x.cloudfront.net")
	f.Fuzz(func(t *testing.T, text, name string) {
		p, err := ParsePattern(text)
		n, nerr := Parse(name)
		if err != nil || nerr != nil || !p.Match(n) {
			return
		}
		if p.Wildcard() && n.Registrable() != p.Base().Registrable() {
			t.Fatalf("%v admits %q of another owner", p, n)
		}
		if again, err := ParsePattern(p.String()); err != nil || again != p {
			t.Fatalf("%v reads back as %v, %v", p, again, err)
		}
	})
}
