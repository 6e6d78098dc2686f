package attack

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// roundTrip sends a request as a client library does.
func (b *boundary) roundTrip(c *tls.Conn, r *http.Request) (*http.Response, error) {
	dial := func(context.Context, string, string) (net.Conn, error) { return c, nil }
	return (&http.Transport{ForceAttemptHTTP2: true, DisableCompression: true, DialTLSContext: dial}).RoundTrip(r)
}

// drained is a probe of an honest request whose answer may be of any length:
// only what shows the value is kept of it.
func drained(path string) func(*boundary) outcome {
	return func(b *boundary) outcome {
		c, err := b.Secure(target{})
		if err != nil {
			return outcome{err: err}
		}
		defer c.Close()
		r := must(http.NewRequest("GET", "https://good.test"+path, nil))
		r.Header.Set("Authorization", bearer)
		resp, err := b.roundTrip(c, r)
		if err != nil {
			return outcome{err: err}
		}
		s := &sieve{b: b}
		_, err = io.Copy(s, resp.Body)
		return outcome{resp.StatusCode, s.head.String(), err}
	}
}

// A sieve keeps what the guest must not read, and the beginning, in which a
// refusal gives its reason.
type sieve struct {
	b    *boundary
	head strings.Builder
	tail []byte
}

func (s *sieve) Write(p []byte) (int, error) {
	s.head.Write(p[:min(len(p), max(0, 4096-s.head.Len()))])
	s.tail = append(s.tail, p...)
	for _, form := range forms() {
		if bytes.Contains(s.tail, []byte(form)) {
			s.b.got(outcome{text: form})
		}
	}
	const longest = 1 << 10
	s.tail = slices.Clone(s.tail[max(0, len(s.tail)-longest):])
	return len(p), nil
}

// openssl runs s_client with what is typed, its connection being one of the
// guest's to good.test.
func openssl(t testing.TB, b *boundary, typed string, args ...string) (string, error) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	go func() {
		near, err := l.Accept()
		if err != nil {
			return
		}
		defer near.Close()
		far, err := b.Dial(target{})
		if err != nil {
			return
		}
		defer far.Close()
		go io.Copy(far, near)
		io.Copy(near, far)
	}()
	cmd := exec.CommandContext(t.Context(), "openssl", append([]string{"s_client", "-connect", l.Addr().String(), "-servername", "good.test"}, args...)...)
	cmd.Stdin = strings.NewReader(typed)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
