package hostname

import (
	"net/url"
	"strconv"
	"testing"
)

// B1, B2 and B4: what a Host field may hold.
func TestParseAuthority(t *testing.T) {
	accepted := map[string]Authority{
		"good.test":        {"good.test", 0},
		"GOOD.test.":       {"good.test", 0},
		"good.test:443":    {"good.test", 443},
		"good.test.:443":   {"good.test", 443},
		"good.test:":       {"good.test", 0},
		"good.test:00443":  {"good.test", 443},
		"good.test:65535":  {"good.test", 65535},
		"xn--bcher-kva.de": {"xn--bcher-kva.de", 0},
	}
	for in, want := range accepted {
		if got, err := ParseAuthority(in); err != nil || got != want {
			t.Errorf("ParseAuthority(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	refused := []string{
		"", ":", ":443", "user@good.test", "user:pw@good.test", "@good.test", "good.test@", "good.test@evil.test",
		"[::1]", "[::1]:443", "::1", "127.0.0.1", "127.0.0.1:443", "good.test%00.evil", "good.test\x00", "good%2etest",
		"good.test:0", "good.test:65536", "good.test:+443", "good.test:-1", "good.test:0x1bb", "good.test:443:443",
		"good.test:443/", "good.test/path", "good.test?q", "good.test#f", "good.test\\", " good.test", "good.test ",
		"good.test:443 ", "good.test,evil.test", "good.test, good.test", "good。test", "bücher.example", "ｇood.test",
		"good.test:４４３", "good.test:000443", "https://good.test", "good.test\u00ad",
	}
	for _, in := range refused {
		if got, err := ParseAuthority(in); err == nil {
			t.Errorf("ParseAuthority(%q) = %v, want an error", in, got)
		}
	}
}

// FuzzParseAuthority: another reader of the same bytes finds the same host
// and port.
func FuzzParseAuthority(f *testing.F) {
	for _, s := range []string{"good.test", "GOOD.test.:443", "a@b", "[::1]:1", "good.test:", "a%41.test", "xn--e28h.test:8443"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAuthority(s)
		if err != nil {
			if a != (Authority{}) {
				t.Fatalf("%q: %v with an error", s, a)
			}
			return
		}
		u, err := url.Parse("https://" + s + "/")
		if err != nil {
			t.Fatalf("%q is accepted, but not by net/url: %v", s, err)
		}
		host, err := Parse(u.Hostname())
		if err != nil || host != a.Host || u.User != nil || u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
			t.Fatalf("%q: we read %v, net/url %#v", s, a, u)
		}
		port := 0
		if u.Port() != "" {
			port, err = strconv.Atoi(u.Port())
		}
		if err != nil || port != int(a.Port) {
			t.Fatalf("%q: we read port %d, net/url %q", s, a.Port, u.Port())
		}
	})
}
