package hello

import (
	"io"
	"strings"
	"testing"
)

var socksClients = map[string]struct{ said, host string }{
	"5, a name":        {"\x05\x01\x00\x05\x01\x00\x03\x09good.test\x01\xbb", "good.test"},
	"5, IPv4":          {"\x05\x02\x00\x02\x05\x01\x00\x01\x5d\xb8\xd8\x22\x01\xbb", "93.184.216.34"},
	"5, IPv6":          {"\x05\x01\x00\x05\x01\x00\x04" + strings.Repeat("\x20", 16) + "\x01\xbb", strings.Repeat("2020:", 7) + "2020"},
	"5, a password":    {"\x05\x01\x02\x01\x02me\x03own\x05\x01\x00\x03\x09good.test\x01\xbb", "good.test"},
	"4":                {"\x04\x01\x01\xbb\x5d\xb8\xd8\x22me\x00", "93.184.216.34"},
	"4a":               {"\x04\x01\x01\xbb\x00\x00\x00\x01me\x00good.test\x00", "good.test"},
	"4, a nameless 0":  {"\x04\x01\x01\xbb\x00\x00\x00\x00\x00", "0.0.0.0"},
	"5, all at once":   {"\x05\x01\x00\x05\x01\x00\x03\x09good.test\x01\xbb\x16\x03\x01", "good.test"},
	"5, no such kind":  {"\x05\x01\x00\x05\x01\x00\x02\x09", ""},
	"5, another after": {"\x05\x01\x00\x06", ""},
	"something else":   {"SSH-2.0-x", ""},
}

// TestSOCKSTarget: whom a client asks for, and no sooner than it has said it.
func TestSOCKSTarget(t *testing.T) {
	for name, tt := range socksClients {
		host, err := SOCKSTarget([]byte(tt.said))
		if host != tt.host || (err == nil) != (tt.host != "") {
			t.Errorf("%s: %q, %v", name, host, err)
		}
		known := false
		for n := range tt.said {
			host, err := SOCKSTarget([]byte(tt.said[:n]))
			known = known || err == nil
			if known && host != tt.host || tt.host != "" && err != nil && err != io.ErrUnexpectedEOF {
				t.Errorf("%s: after %d bytes %q, %v", name, n, host, err)
			}
		}
	}
}

// FuzzSOCKSTarget: what was understood stays, whatever follows, and is
// understood within MaxSOCKS.
func FuzzSOCKSTarget(f *testing.F) {
	for _, tt := range socksClients {
		f.Add([]byte(tt.said), []byte("x"))
	}
	f.Fuzz(func(t *testing.T, said, more []byte) {
		host, err := SOCKSTarget(said)
		if err == io.ErrUnexpectedEOF {
			if len(said) >= MaxSOCKS && said[0] == 5 {
				t.Fatalf("%d bytes are too few", len(said))
			}
			return
		}
		if again, e := SOCKSTarget(append(said, more...)); again != host || (e == nil) != (err == nil) {
			t.Fatalf("%q, %v became %q, %v", host, err, again, e)
		}
	})
}
