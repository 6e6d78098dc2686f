package attack

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/ocsp"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// A11, A13, A16, A17: what a handshake may be, on either side.
var sectionHello = join(helloNames(), helloShapes(), oldProtocols(), stapled(), []probe{
	{
		entry: "A13", name: "permitted to go unverified, and nobody verifies", run: connect(target{}, "good.test"), want: substituted,
		change: func(b *boundary) { selfSigned(b); b.Secret.Unverified = []hostname.Name{"good.test"}; noVerify(b) },
	},
	{
		entry: "A13", name: "permitted to go unverified, but it is verified", run: connect(target{}, "good.test"), want: forbidden(policy.UpstreamUnverified),
		change: func(b *boundary) {
			b.InProcess(atLoad)
			selfSigned(b)
			b.Secret.Unverified = []hostname.Name{"good.test"}
		}, check: nothingSent,
	},
})

func selfSigned(b *boundary) {
	cert := must(b.CA.SelfSigned("good.test"))
	b.GoodIs(b.Serve(testnet.UpstreamConfig{Cert: &cert}))
}

func noVerify(b *boundary) { b.Config.NoVerify = []hostname.Name{"good.test"} }

// A hello is a ClientHello that no library would send.
type hello struct {
	names  []string // in one list
	lists  int      // how often the list stands there
	suites []uint16 // nil: those of TLS 1.3
	only12 bool     // TLS 1.3 is not offered
	more   func(*cryptobyte.Builder)
}

// record returns the hello in one TLS record.
func (h hello) record() string {
	var b cryptobyte.Builder
	if h.suites == nil {
		h.suites = []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	}
	prefixed := func(b *cryptobyte.Builder, f func(b *cryptobyte.Builder)) { b.AddUint16LengthPrefixed(f) }
	extension := func(b *cryptobyte.Builder, id uint16, f func(b *cryptobyte.Builder)) { b.AddUint16(id); prefixed(b, f) }
	b.AddBytes([]byte{22, 3, 1})
	prefixed(&b, func(b *cryptobyte.Builder) {
		b.AddUint8(1)
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint16(tls.VersionTLS12)
			b.AddBytes(make([]byte, 32))
			b.AddUint8(0)
			prefixed(b, func(b *cryptobyte.Builder) {
				for _, s := range h.suites {
					b.AddUint16(s)
				}
			})
			b.AddBytes([]byte{1, 0})
			prefixed(b, func(b *cryptobyte.Builder) {
				for range h.lists {
					extension(b, 0, func(b *cryptobyte.Builder) {
						prefixed(b, func(b *cryptobyte.Builder) {
							for _, n := range h.names {
								b.AddUint8(0)
								prefixed(b, func(b *cryptobyte.Builder) { b.AddBytes([]byte(n)) })
							}
						})
					})
				}
				extension(b, 10, func(b *cryptobyte.Builder) { b.AddBytes([]byte{0, 2, 0, 29}) })
				extension(b, 13, func(b *cryptobyte.Builder) { b.AddBytes([]byte{0, 2, 4, 3}) })
				if !h.only12 {
					extension(b, 43, func(b *cryptobyte.Builder) { b.AddBytes([]byte{2, 3, 4}) })
					extension(b, 51, func(b *cryptobyte.Builder) {
						prefixed(b, func(b *cryptobyte.Builder) {
							b.AddUint16(29)
							prefixed(b, func(b *cryptobyte.Builder) { b.AddBytes(bytes.Repeat([]byte{9}, 32)) })
						})
					})
				}
				if h.more != nil {
					h.more(b)
				}
			})
		})
	})
	return string(b.BytesOrPanic())
}

// greeted is a probe of bytes to good.test on a bare connection, which must
// end without an answer.
func greeted(text string) func(*boundary) outcome {
	return func(b *boundary) outcome {
		c, err := b.Dial(target{})
		if err != nil {
			return outcome{err: err}
		}
		defer c.Close()
		go io.WriteString(c, text)
		got, err := io.ReadAll(c)
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			return outcome{status: -1, err: fmt.Errorf("the connection did not end: %w", err)}
		}
		return b.got(outcome{text: string(got)})
	}
}

func refusedHello(reason policy.Reason) want { return want{status: []int{0}, reason: reason} }

// helloNames are the server names of A11 that Go's client does not send.
func helloNames() []probe {
	var out []probe
	for _, x := range []struct {
		name  string
		hello hello
	}{
		{"a trailing dot", hello{names: []string{"good.test."}, lists: 1}},
		{"an empty name", hello{names: []string{""}, lists: 1}},
		{"two names in a list", hello{names: []string{"evil.test", "good.test"}, lists: 1}},
		{"two lists", hello{names: []string{"good.test"}, lists: 2}},
		{"254 octets", hello{names: []string{strings.Repeat("a.", 122) + "good.test."}, lists: 1}},
		{"NUL", hello{names: []string{"good.test\x00.evil.test"}, lists: 1}},
	} {
		out = append(out, probe{
			entry: "A11", name: "raw: " + x.name, only: "h1", run: greeted(x.hello.record()), want: refusedHello(policy.MalformedRequest), check: nothingSent,
		})
	}
	// An internationalised name may be written in letters or in ASCII: what
	// counts is its canonical form.
	const unicode, ascii = "bücher.test", "xn--bcher-kva.test"
	idn := func(b *boundary) {
		b.Secret.Hosts[0].Pattern = must(hostname.ParsePattern(unicode))
		b.GoodIs(b.Upstream(nil, ascii))
		b.DNS.Set(ascii, testnet.Record{Addrs: []netip.Addr{goodAddr}})
	}
	return append(out,
		probe{entry: "A11", name: "IDN", change: idn, run: connect(target{Name: ascii}, ascii), want: substituted},
		probe{entry: "A11", name: "IDN, upper case", change: idn, run: connect(target{Name: "XN--BCHER-KVA.test"}, "xn--bcher-kva.TEST"), want: substituted},
		probe{entry: "A11", name: "IDN, look-alike", change: idn, run: connect(target{Name: ascii}, "xn--bcher-0va.test"), want: misdirected},
		probe{
			entry: "A11", name: "IDN in letters", change: func(b *boundary) { idn(b); b.Pin(ascii, goodAddr) },
			run: connect(target{Addr: goodAddr, Name: unicode, TLS: &tls.Config{InsecureSkipVerify: true}}, ascii), want: substituted, // canonical, it is the host
		},
	)
}

// helloShapes are A16.
func helloShapes() []probe {
	many := []string{}
	for i := range 240 {
		many = append(many, fmt.Sprintf("%0200d", i))
	}
	out := []probe{
		{
			entry: "A16", name: "a hello in records of one byte", want: substituted,
			run: wrapped(func(c net.Conn) net.Conn { return &oneByteHello{Conn: c} }),
		},
		{
			entry: "A16", name: "48 KB of extensions", want: substituted,
			run: wrapped(func(c net.Conn) net.Conn { return c }, many...),
		},
		{entry: "A16", name: "a hello that claims 16 MB", only: "h1", run: greeted("\x16\x03\x01\x40\x00\x01\xff\xff\xfc\x03\x03" + strings.Repeat("x", 300<<10)), want: refusedHello(policy.MalformedRequest), check: nothingSent},
		{entry: "A16", name: "a megabyte of empty records", only: "h1", run: greeted(strings.Repeat("\x16\x03\x01\x00\x00", 200<<10)), want: refusedHello(policy.MalformedRequest), check: nothingSent},
		{
			entry: "A16", name: "a hello, then silence", only: "h1", want: refusedHello(policy.GuestHandshake), check: nothingSent,
			run: func(b *boundary) outcome {
				c, err := b.Dial(target{})
				if err != nil {
					return outcome{err: err}
				}
				io.WriteString(c, hello{names: []string{"good.test"}, lists: 1}.record())
				if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
					return outcome{status: -1, err: err}
				}
				o := connect(target{}, "good.test")(b) // meanwhile others work
				c.Close()
				if o.status != 200 || strings.Contains(b.Received(), P) {
					return outcome{status: -1, err: errors.New("another connection is kept waiting")}
				}
				b.Good.Reset()
				return outcome{}
			},
		},
	}
	return out
}

// wrapped is a probe of an honest request through a connection that wrap
// changes, in a hello that offers more protocols.
func wrapped(wrap func(net.Conn) net.Conn, more ...string) func(*boundary) outcome {
	return func(b *boundary) outcome {
		c, err := b.Dial(target{})
		if err != nil {
			return outcome{err: err}
		}
		defer c.Close()
		conn := tls.Client(wrap(c), &tls.Config{ServerName: "good.test", InsecureSkipVerify: true, NextProtos: append(b.ALPN(), more...)})
		if err := conn.Handshake(); err != nil {
			return outcome{err: err}
		}
		return b.request(conn, "GET", "/echo", "good.test", "Authorization", bearer)
	}
}

// A oneByteHello sends its first record as records of one byte.
type oneByteHello struct {
	net.Conn
	done bool
}

func (c *oneByteHello) Write(p []byte) (int, error) {
	if c.done {
		return c.Conn.Write(p)
	}
	c.done = true
	var out []byte
	for _, x := range p[5:] {
		out = append(out, p[0], p[1], p[2], 0, 1, x)
	}
	_, err := c.Conn.Write(out)
	return len(p), err
}

// oldProtocols are A17.
func oldProtocols() []probe {
	version := func(v uint16) target { return target{TLS: &tls.Config{MinVersion: v, MaxVersion: v}} }
	out := []probe{
		{entry: "A17", name: "TLS 1.0", run: connect(version(tls.VersionTLS10), "good.test"), want: refusedHello(policy.GuestHandshake), check: nothingSent},
		{
			entry: "A17", name: "an upstream of TLS 1.1", run: connect(target{}, "good.test"), want: refusedHello(policy.UpstreamFailed), check: nothingSent,
			change: func(b *boundary) {
				cert := must(b.CA.Cert("good.test"))
				b.GoodIs(b.Serve(testnet.UpstreamConfig{Cert: &cert, TLS: &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}}))
			},
		},
		{
			entry: "A17", name: "early data", only: "h1", want: refusedHello(policy.GuestHandshake), check: nothingSent,
			run: greeted(hello{names: []string{"good.test"}, lists: 1, more: func(b *cryptobyte.Builder) {
				b.AddUint16(42)
				b.AddUint16(0)
			}}.record() + "\x17\x03\x03\x00\x40" + (getGood + authLine + "\r\n")[:64]),
		},
		{entry: "A17", name: "no session is resumed", run: resumed, want: substituted},
		{entry: "A17", name: "renegotiation", only: "h1", run: renegotiated, want: unanswered, check: nothingSent},
	}
	for name, suites := range map[string][]uint16{
		"suites without encryption": {0x0000, 0x0001, 0x0002, 0xc006, 0xc010},
		"export suites":             {0x0003, 0x0006, 0x0008, 0x0014, 0x0017},
		"anonymous suites":          {0x0018, 0x0034, 0xc018},
	} {
		out = append(out, probe{
			entry: "A17", name: name, only: "h1", want: refusedHello(policy.GuestHandshake), check: nothingSent,
			run: greeted(hello{names: []string{"good.test"}, lists: 1, only12: true, suites: suites}.record()),
		})
	}
	return out
}

// resumed connects twice with a client that keeps what it is given for that.
func resumed(b *boundary) outcome {
	cfg := &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	var o outcome
	for range 2 {
		c, err := b.Secure(target{TLS: cfg})
		if err != nil {
			return outcome{err: err}
		}
		defer c.Close()
		if c.ConnectionState().DidResume {
			return outcome{err: errors.New("the session was resumed: its facts are those of another connection")}
		}
		o = b.request(c, "GET", "/echo", "good.test", "Authorization", bearer)
	}
	return o
}

// renegotiated lets openssl ask for a new handshake and then for the value.
func renegotiated(b *boundary) outcome {
	roots := filepath.Join(b.T.TempDir(), "ca.pem")
	if err := os.WriteFile(roots, b.CertPEM(), 0o600); err != nil {
		return outcome{err: err}
	}
	out, err := openssl(b.T, b, "R\n"+getGood+authLine+"\n", "-tls1_2", "-crlf", "-CAfile", roots, "-alpn", "http/1.1")
	switch {
	case !strings.Contains(out, "RENEGOTIATING"):
		return outcome{status: -1, err: fmt.Errorf("openssl did not try: %v: %s", err, out)}
	case strings.Contains(out, "HTTP/1.1 "):
		return outcome{status: -1, err: fmt.Errorf("there was an answer: %s", out)}
	}
	return b.got(outcome{text: out})
}

// stapled are the certificates of A13 on which their issuer has had a word.
func stapled() []probe {
	now := time.Now()
	says := func(status int) *ocsp.Response {
		return &ocsp.Response{Status: status, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour), RevokedAt: now.Add(-time.Hour)}
	}
	var out []probe
	for _, x := range []struct {
		name    string
		demands bool
		staple  *ocsp.Response
		refused bool
	}{
		{"stapled: revoked", false, says(ocsp.Revoked), true},
		{"stapled: good", false, says(ocsp.Good), false},
		{"a staple is demanded, and there", true, says(ocsp.Good), false},
		{"a staple is demanded, and not there", true, nil, true},
		{"a staple is demanded, and says: revoked", true, says(ocsp.Revoked), true},
	} {
		p := probe{
			entry: "A13", name: x.name, run: connect(target{}, "good.test"), want: substituted,
			change: func(b *boundary) {
				cert := must(b.CA.Issue(testnet.Leaf{Names: []string{"good.test"}, MustStaple: x.demands}))
				if x.staple != nil {
					cert = must(b.CA.Staple(cert, *x.staple, nil))
				}
				b.GoodIs(b.Serve(testnet.UpstreamConfig{Cert: &cert}))
			},
		}
		if x.refused {
			p.want, p.check = forbidden(policy.UpstreamUnverified), nothingSent
		}
		out = append(out, p)
	}
	return out
}
