package hello

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cutoutdev/cutout/internal/hostname"
)

// clientHello returns the bytes that crypto/tls sends first.
func clientHello(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	go tls.Client(b, cfg).Handshake()
	buf := make([]byte, 1<<20)
	n, err := a.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// named returns a ClientHello with any bytes as server name: crypto/tls sends
// only proper ones.
func named(t testing.TB, name string) []byte {
	const stand = "stand.in.test"
	b := clientHello(t, &tls.Config{ServerName: stand, CurvePreferences: []tls.CurveID{tls.X25519}}) // a small one
	i := bytes.Index(b, []byte(stand))
	grow := len(name) - len(stand)
	out := append(bytes.Clone(b[:i]), name...)
	out = append(out, b[i+len(stand):]...)
	add := func(at, size int) { // a big-endian length
		n := grow
		for j := range size {
			n += int(out[at+j]) << (8 * (size - 1 - j))
		}
		for j := range size {
			out[at+j] = byte(n >> (8 * (size - 1 - j)))
		}
	}
	add(i-2, 2) // name
	add(i-5, 2) // list
	add(i-7, 2) // extension
	at := 9 + 2 + 32
	at += 1 + int(out[at])                     // session id
	at += 2 + int(out[at])<<8 + int(out[at+1]) // cipher suites
	at += 1 + int(out[at])                     // compression
	add(at, 2)                                 // extensions
	add(6, 3)                                  // handshake
	add(3, 2)                                  // record
	return out
}

// records cuts the one record in b into records of at most n bytes.
func records(b []byte, n int) []byte {
	var out []byte
	for body := b[5:]; len(body) > 0; {
		k := min(n, len(body))
		out = append(append(out, 22, 3, 1, byte(k>>8), byte(k)), body[:k]...)
		body = body[k:]
	}
	return out
}

// A script is a connection that reads given segments and then ends.
type script struct {
	net.Conn
	segments [][]byte
	err      error
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.segments) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		return 0, io.EOF
	}
	n := copy(p, s.segments[0])
	if s.segments[0] = s.segments[0][n:]; len(s.segments[0]) == 0 {
		s.segments = s.segments[1:]
	}
	return n, nil
}

func (s *script) SetReadDeadline(time.Time) error { return nil }
func (s *script) LocalAddr() net.Addr             { return nil }
func (s *script) RemoteAddr() net.Addr            { return nil }

func cut(b []byte, n int) (out [][]byte) {
	for b = bytes.Clone(b); len(b) > 0; b = b[min(n, len(b)):] {
		out = append(out, b[:min(n, len(b))])
	}
	return out
}

func TestKinds(t *testing.T) {
	good := func(names ...hostname.Name) Hello { return Hello{Kind: HTTP, Hosts: names} }
	for _, tt := range []struct {
		name, in string
		want     Hello
	}{
		{"nothing", "", Hello{Kind: Silent}},
		{"request", "GET / HTTP/1.1\r\nHost: Good.test.\r\n\r\nHost: later.test\r\n", good("good.test")},
		{"two hosts", "GET / HTTP/1.1\r\nHost: a.test\r\nhOST : u@b.test:80\r\n\r\n", good("a.test", "b.test")},
		{"absolute form", "GET http://u:p@a.test/x HTTP/1.1\r\nHost: b.test\r\n\r\n", good("a.test", "b.test")},
		{"connect", "CONNECT a.test:443 HTTP/1.1\r\n\r\n", good("a.test")},
		{"bare LF", "GET / HTTP/1.1\nHost: a.test\n\n", good("a.test")},
		{"bare CR", "GET / HTTP/1.1\rHost: a.test\r\r", good("a.test")},
		{"leading LF", "\n\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n", good("a.test")},
		{"folded", "GET / HTTP/1.1\r\nHost:\r\n a.test\r\n\r\n", good("a.test")},
		{"four words", "GET / x HTTP/1.1\r\n\r\n", good()},
		{"lower case", "get / http/1.1\r\n\r\n", good()},
		{"odd method", "BREW / hTTp/1.1\r\n\r\n", good()},
		{"tabs", "GET\t/\tHTTP/1.1\r\n\r\n", good()},
		{"no version", "GET /x\r\n", good()},
		{"prior knowledge", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", good()},
		{"unfinished head", "GET / HTTP/1.1\r\nHost: a.test", good("a.test")},
		{"redis", "GET key\r\n", Hello{Kind: Other}},
		{"ssh", "SSH-2.0-OpenSSH_9.2p1 Debian\r\n", Hello{Kind: Other}},
		{"smtp", "EHLO a.test\r\n", Hello{Kind: Other}},
		{"binary", "\x00\x01\x02", Hello{Kind: Other}},
		{"sslv2", "\x80\x2e\x01\x00\x02", Hello{Kind: Other}},
		{"half a word", "GE", Hello{Kind: Other}},
		{"other record", "\x16\x08\x01\x00\x05hello", Hello{Kind: Other}},
		{"broken record", "\x16\x03\x01\x00\x05hello", Hello{Kind: TLS, Malformed: true}},
		{"huge hello", "\x16\x03\x01\x00\x05\x01\xff\xff\xff\x03", Hello{Kind: TLS, Malformed: true}},
		{"half a hello", string(named(t, "good.test")[:80]), Hello{Kind: TLS, Malformed: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, n := range []int{1, 7, 1 << 20} {
				c, got, err := Peek(t.Context(), &script{segments: cut([]byte(tt.in), n)}, Config{})
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(tt.want, got); d != "" {
					t.Errorf("segments of %d (-want +got):\n%s", n, d)
				}
				if all, _ := io.ReadAll(c); string(all) != tt.in {
					t.Errorf("segments of %d: replayed %q", n, all)
				}
			}
		})
	}
}

func TestClientHello(t *testing.T) {
	plain := clientHello(t, &tls.Config{ServerName: "good.test", NextProtos: []string{"h2", "http/1.1"}})
	large := clientHello(t, &tls.Config{ServerName: "good.test", NextProtos: manyProtos(6000)})
	for name, b := range map[string][]byte{
		"whole":               plain,
		"1-byte records":      records(plain, 1),
		"3-byte records":      records(plain, 3),
		"large":               large,
		"large, 4-byte":       records(large, 4),
		"with data behind it": append(bytes.Clone(plain), "early"...),
	} {
		for _, n := range []int{1, 100, 1 << 20} {
			c, h, err := Peek(t.Context(), &script{segments: cut(b, n)}, Config{})
			if err != nil {
				t.Fatalf("%s, segments of %d: %v", name, n, err)
			}
			if h.Kind != TLS || h.Malformed || h.Name != "good.test" || h.RawName != "good.test" || h.BadName || h.ECH ||
				len(h.ALPN) == 0 || h.ALPN[0] != "h2" || len(h.Versions) == 0 || h.Versions[0] != tls.VersionTLS13 {
				t.Errorf("%s, segments of %d: %+v", name, n, h)
			}
			if all, _ := io.ReadAll(c); !bytes.Equal(all, b) {
				t.Errorf("%s, segments of %d: replay differs", name, n)
			}
		}
	}
}

func manyProtos(size int) []string {
	out := []string{"h2"}
	for n := 0; n < size; n += 101 {
		out = append(out, strings.Repeat("p", 100))
	}
	return out
}

func TestServerNames(t *testing.T) {
	for _, tt := range []struct {
		raw  string
		name hostname.Name
		bad  bool
	}{
		{"good.test", "good.test", false},
		{"GOOD.Test", "good.test", false},
		{"bücher.test", "xn--bcher-kva.test", false},
		{"good.test\x00.evil.test", "", true},
		{"10.0.0.1", "", true},
		{"[::1]", "", true},
		{"2130706433", "", true},
		{strings.Repeat("a.", 126) + "test", "", true},
		{"good..test", "", true},
		{"good.test evil.test", "", true},
	} {
		_, h, err := Peek(t.Context(), &script{segments: [][]byte{named(t, tt.raw)}}, Config{})
		if err != nil || h.Kind != TLS || h.Malformed {
			t.Errorf("%q: %+v, %v", tt.raw, h, err)
			continue
		}
		if h.RawName != tt.raw || h.Name != tt.name || h.BadName != tt.bad {
			t.Errorf("%q: %+v", tt.raw, h)
		}
	}
	// RFC 6066 §3 forbids the trailing dot and crypto/tls refuses it.
	if _, h, _ := Peek(t.Context(), &script{segments: [][]byte{named(t, "good.test.")}}, Config{}); !h.Malformed || h.Name != "" {
		t.Errorf("trailing dot: %+v", h)
	}
	none := clientHello(t, &tls.Config{InsecureSkipVerify: true})
	if _, h, _ := Peek(t.Context(), &script{segments: [][]byte{none}}, Config{}); h.Kind != TLS || h.Malformed || h.RawName != "" || h.BadName {
		t.Errorf("no name: %+v", h)
	}
}

func TestTwoServerNamesAreMalformed(t *testing.T) {
	// one list with two entries of type host_name: name, then 00 len name
	two := "good.test\x00\x00\x09evil.test"
	b := named(t, two)
	i := bytes.Index(b, []byte(two))
	b[i-1], b[i-2] = 9, 0
	_, h, err := Peek(t.Context(), &script{segments: [][]byte{b}}, Config{})
	if err != nil || h.Kind != TLS || !h.Malformed || h.Name != "" {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestECHIsSeen(t *testing.T) {
	b := clientHello(t, &tls.Config{ServerName: "good.test", NextProtos: []string{"ech-stand-in"}})
	// Turn the ALPN extension into an ECH one of type "inner" (1 byte: 01).
	alpn := bytes.Index(b, []byte("ech-stand-in")) - 7
	rest := bytes.Clone(b[alpn+7+len("ech-stand-in"):])
	lost := 2 + 1 + len("ech-stand-in") - 1
	out := append(append(bytes.Clone(b[:alpn]), 0xfe, 0x0d, 0, 1, 1), rest...)
	shrink := func(at, size int) {
		n := -lost
		for j := range size {
			n += int(out[at+j]) << (8 * (size - 1 - j))
		}
		for j := range size {
			out[at+j] = byte(n >> (8 * (size - 1 - j)))
		}
	}
	at := 9 + 2 + 32
	at += 1 + int(out[at])
	at += 2 + int(out[at])<<8 + int(out[at+1])
	at += 1 + int(out[at])
	shrink(at, 2)
	shrink(6, 3)
	shrink(3, 2)
	if _, h, err := Peek(t.Context(), &script{segments: [][]byte{out}}, Config{}); err != nil || !h.ECH || h.Name != "good.test" {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestLimits(t *testing.T) {
	// A hello in 1-byte records with endless content.
	endless := append(records(append(make([]byte, 5), 1, 0, 0xff, 0xff), 1), records(make([]byte, 60000), 1)...)
	_, h, err := Peek(t.Context(), &script{segments: cut(endless, 4096)}, Config{})
	if !errors.Is(err, ErrTooLarge) || h.Name != "" {
		t.Errorf("endless hello: %+v, %v", h, err)
	}
	t.Run("hello, then silence", func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		go a.Write(named(t, "good.test")[:50])
		start := time.Now()
		_, h, err := Peek(t.Context(), b, Config{Timeout: 50 * time.Millisecond})
		if !errors.Is(err, ErrTimeout) || h.Name != "" || time.Since(start) > 5*time.Second {
			t.Errorf("%+v, %v after %v", h, err, time.Since(start))
		}
	})
	t.Run("a byte at a time", func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		go func() {
			for _, s := range cut(named(t, "good.test"), 1) {
				if _, err := a.Write(s); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		}()
		if _, _, err := Peek(t.Context(), b, Config{Timeout: 200 * time.Millisecond}); !errors.Is(err, ErrTimeout) {
			t.Errorf("error = %v", err)
		}
	})
	if _, _, err := Peek(t.Context(), &script{err: os.ErrPermission}, Config{}); !errors.Is(err, os.ErrPermission) {
		t.Errorf("a failing connection: %v", err)
	}
}

func TestSilence(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	c, h, err := Peek(t.Context(), b, Config{Silence: 30 * time.Millisecond})
	if err != nil || h.Kind != Silent {
		t.Fatalf("%+v, %v", h, err)
	}
	go a.Write([]byte("later"))
	buf := make([]byte, 5)
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "later" {
		t.Errorf("after the peek: %q, %v", buf, err)
	}
}

// TestServerSpeaksFirst cancels the peek as a relay does when the server's
// banner comes, before, in the middle of and after the guest's bytes.
func TestServerSpeaksFirst(t *testing.T) {
	for _, sent := range []string{"", "G", "GET / HT", string(named(t, "good.test")[:30])} {
		a, b := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		type result struct {
			c   *Conn
			h   Hello
			err error
		}
		done := make(chan result)
		go func() {
			c, h, err := Peek(ctx, b, Config{})
			done <- result{c, h, err}
		}()
		if sent != "" {
			a.Write([]byte(sent))
		}
		cancel()
		select {
		case r := <-done:
			if r.err != nil || r.h.Kind != Silent && r.h.Kind != Other {
				t.Errorf("%q: %+v, %v", sent, r.h, r.err)
			}
			go func() { a.Write([]byte("more")); a.Close() }()
			if all, err := io.ReadAll(r.c); err != nil || string(all) != sent+"more" {
				t.Errorf("%q: read %q, %v", sent, all, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%q: the peek was not interrupted", sent)
		}
	}
}

func FuzzPeek(f *testing.F) {
	f.Add(named(f, "good.test"), byte(1))
	f.Add(records(named(f, "good.test"), 1), byte(3))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: good.test\r\n\r\n"), byte(5))
	f.Add([]byte("\r\n\r\nget http://a.test:80/ http/1.0\n\n"), byte(2))
	f.Fuzz(func(t *testing.T, in []byte, n byte) {
		_, want, wantErr := Peek(t.Context(), &script{segments: cut(in, 1<<20)}, Config{})
		c, got, err := Peek(t.Context(), &script{segments: cut(in, int(n)%64+1)}, Config{})
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("errors %v and %v", err, wantErr)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("the split matters:\n%s", d)
		}
		if all, _ := io.ReadAll(c); !bytes.Equal(all, in) {
			t.Fatal("bytes were lost")
		}
	})
}

func BenchmarkPeek(b *testing.B) {
	in := clientHello(b, &tls.Config{ServerName: "good.test", NextProtos: []string{"h2", "http/1.1"}})
	for b.Loop() {
		Peek(b.Context(), &script{segments: [][]byte{in}}, Config{})
	}
}
