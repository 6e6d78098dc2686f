package hostname

import (
	"strings"
	"testing"
)

var long = strings.Repeat("abcdefghi.", 25) + "abc" // 253 octets

// A11 and B4.
func TestParse(t *testing.T) {
	accepted := map[string]Name{
		"good.test":                       "good.test",
		"GOOD.Test":                       "good.test",
		"good.test.":                      "good.test",
		"localhost":                       "localhost",
		"a_b._tcp.test":                   "a_b._tcp.test",
		"r3---sn-abc.googlevideo.com":     "r3---sn-abc.googlevideo.com",
		"1e100.net":                       "1e100.net",
		"a.1a":                            "a.1a",
		"bücher.example":                  "xn--bcher-kva.example",
		"BÜCHER.example":                  "xn--bcher-kva.example",
		"XN--bcher-KVA.example":           "xn--bcher-kva.example",
		"faß.de":                          "xn--fa-hia.de",
		"good。test":                       "good.test",
		"ｇｏｏｄ.test":                       "good.test",
		long:                              Name(long),
		long + ".":                        Name(long),
		strings.Repeat("a", 63) + ".test": Name(strings.Repeat("a", 63) + ".test"),
	}
	for in, want := range accepted {
		if got, err := Parse(in); err != nil || got != want {
			t.Errorf("Parse(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	refused := []string{
		"", ".", "..", "good.test..", ".good.test", "good..test",
		long + "d", strings.Repeat("a", 64) + ".test", strings.Repeat("é", 600),
		"good.test\x00", "good.test\x00.evil.test", "good.test%00.evil.test", "good.test\r\nx", "good .test", "good\ttest",
		"user@good.test", "good.test:443", "good.test/", "good.test#", "good.test?", "good\\test", "*.good.test", "*",
		"127.0.0.1", "127.0.0.1.", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "a.0x", "a.0x7F", "a.1",
		"::1", "[::1]", "[::ffff:127.0.0.1]", "fe80::1%eth0", "①②⑦.0.0.1", "１２７.0.0.1",
		"-good.test", "good-.test", "xn--a.example", "xn--.test", "\u200dgood.test", "\xff\xfe.test",
	}
	for _, in := range refused {
		if got, err := Parse(in); err == nil {
			t.Errorf("Parse(%q) = %q, want an error", in, got)
		}
	}
}

func TestRegistrable(t *testing.T) {
	for in, want := range map[Name]Name{
		"uploads.x.com": "x.com", "a.b.co.uk": "b.co.uk", "com": "com", "me.github.io": "me.github.io", "": "",
	} {
		if got := in.Registrable(); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"good.test", "GOOD.test.", "bücher.example", "xn--bcher-kva.example", "a--b", "[::1]", "1.2.3.4", "ẞ.de", "a\u00adb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := Parse(s)
		if err != nil {
			if n != "" {
				t.Fatalf("Parse(%q) = %q with an error", s, n)
			}
			return
		}
		if len(n) == 0 || len(n) > 253 || strings.Trim(string(n), "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
			t.Fatalf("Parse(%q) = %q, not canonical", s, n)
		}
		for _, again := range []string{string(n), string(n) + ".", strings.ToUpper(string(n))} {
			if m, err := Parse(again); err != nil || m != n {
				t.Fatalf("Parse(%q) = %q, but Parse(%q) = %q, %v", s, n, again, m, err)
			}
		}
	})
}
