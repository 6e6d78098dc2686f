package socks

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestHost: a host is read as it is written, without a byte of what follows,
// and what is cut is no host.
func TestHost(t *testing.T) {
	for _, host := range []string{"good.test", "192.0.2.1", "2001:db8::1", strings.Repeat("a", 255)} {
		b := AppendHost(nil, host)
		r := bytes.NewReader(append(b, "rest"...))
		kind, _ := r.ReadByte()
		got, err := ReadHost(r, kind)
		if err != nil || got != host || r.Len() != len("rest") {
			t.Errorf("%s: got %q, %v, and %d bytes are left", host, got, err, r.Len())
		}
		for n := 1; n < len(b); n++ {
			if got, err := ReadHost(bytes.NewReader(b[1:n]), kind); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s, %d bytes of it: %q, %v", host, n, got, err)
			}
		}
	}
	if got, err := ReadHost(strings.NewReader("abcdefgh"), 2); !errors.Is(err, ErrMalformed) {
		t.Errorf("an unknown kind: %q, %v", got, err)
	}
}
