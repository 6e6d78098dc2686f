package attack

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/testnet"
	world "github.com/cutoutdev/cutout/internal/testnet/boundary"
)

// V is the value, P its placeholder.
const (
	V = world.Value
	P = world.Placeholder
)

var (
	goodAddr  = world.GoodAddr
	evilAddr  = world.EvilAddr
	strayAddr = world.StrayAddr
)

// A boundary remembers what its guest was sent.
type boundary struct {
	*world.Boundary

	mu       sync.Mutex
	read     bytes.Buffer // everything that the guest was sent in answers
	messages []string     // that takeDown got
}

type target = world.Target

func must[T any](v T, err error) T { return world.Must(v, err) }

// Inapplicable is what a probe panics with that a boundary which is reached in
// another way cannot be sent.
type inapplicable = world.Inapplicable

// guest is the machine whose frames a probe makes or reads. Programs that
// come as to a proxy have none.
func (b *boundary) guest() *netstacktest.Guest {
	if b.Guest == nil {
		panic(inapplicable("it takes a network interface"))
	}
	return b.Guest
}

// A lan is the guest with the addresses on its cable.
type lan struct {
	*netstacktest.Guest
	own4, own6, gateway4, gateway6, broadcast netip.Addr
}

// Nowhere is the cable of no guest.
var nowhere = lan{nil, netstacktest.Guest4.Addr(), netstacktest.Guest6.Addr(), netstacktest.Gateway4, netstacktest.Gateway6, netip.Addr{}}

func (b *boundary) lan() lan {
	g := b.guest()
	own4, own6, gateway4, gateway6 := g.Addresses()
	last := own4.Addr().As4()
	for bit := own4.Bits(); bit < 32; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	return lan{g, own4.Addr(), own6.Addr(), gateway4, gateway6, netip.AddrFrom4(last)}
}

// start makes a boundary; change may alter its configuration.
func start(t *testing.T, protocol string, change func(*boundary)) *boundary {
	b := new(boundary)
	world.Start(t, protocol, func(w *world.Boundary) {
		b.Boundary = w
		w.Way, w.Program = world.Way(*way), *program
		if change != nil {
			change(b)
		}
	})
	return b
}

// An outcome is what the guest got for one request.
type outcome struct {
	status int    // 0: no answer
	text   string // head and body
	err    error
}

// reason is the one in a refusal.
func (o outcome) reason() policy.Reason {
	_, rest, _ := strings.Cut(o.text, `"reason":"`)
	reason, _, _ := strings.Cut(rest, `"`)
	return policy.Reason(reason)
}

func (b *boundary) got(o outcome) outcome {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read.WriteString(o.text)
	return o
}

// raw writes bytes on a connection and reads n answers.
func (b *boundary) raw(c net.Conn, text string, n int) []outcome {
	go io.WriteString(c, text)
	var out []outcome
	for r := bufio.NewReader(c); len(out) < n; {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			out = append(out, outcome{err: err})
			continue
		}
		body, err := io.ReadAll(resp.Body)
		var all strings.Builder
		fmt.Fprintln(&all, resp.Status)
		resp.Header.Write(&all)
		all.Write(body)
		resp.Trailer.Write(&all)
		out = append(out, b.got(outcome{resp.StatusCode, all.String(), err}))
	}
	return out
}

// request writes one request of a method, path, authority and further fields,
// in the boundary's protocol, and reads the answer.
func (b *boundary) request(c net.Conn, method, path, authority string, fields ...string) outcome {
	return b.send(c, method, path, authority, "", fields...)
}

// send is request with a body, of known length unless it is empty.
func (b *boundary) send(c net.Conn, method, path, authority, body string, fields ...string) outcome {
	if body != "" {
		fields = append(fields, "Content-Length", fmt.Sprint(len(body)))
	}
	if b.Protocol == "h1" {
		var text strings.Builder
		fmt.Fprintf(&text, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, authority)
		for i := 0; i < len(fields); i += 2 {
			fmt.Fprintf(&text, "%s: %s\r\n", fields[i], fields[i+1])
		}
		text.WriteString("\r\n" + body)
		return b.raw(c, text.String(), 1)[0]
	}
	head := []string{":method", method, ":scheme", "https", ":path", path, ":authority", authority}
	for i := 0; i < len(fields); i += 2 {
		head = append(head, strings.ToLower(fields[i]), fields[i+1])
	}
	f := b.frames(c)
	f.Head(1, body == "", head...)
	for ; body != ""; body = body[min(len(body), 16<<10):] {
		f.WriteData(1, len(body) <= 16<<10, []byte(body[:min(len(body), 16<<10)]))
	}
	return f.outcome(1)
}

// Frames is an HTTP/2 connection, frame by frame.
type frames struct {
	*testnet.HTTP2
	b *boundary
}

func (b *boundary) frames(c net.Conn) *frames { return &frames{testnet.NewHTTP2(c), b} }

// outcome reads the answer on stream id.
func (f *frames) outcome(id uint32) outcome {
	status, text, err := f.Answer(id)
	return f.b.got(outcome{status, text, err})
}

// forms are those in which V must not reach the guest.
func forms() []string {
	var percent, entities, escapes strings.Builder
	for _, c := range []byte(V) {
		fmt.Fprintf(&percent, "%%%02x", c)
		fmt.Fprintf(&entities, "&#%d;", c)
		fmt.Fprintf(&escapes, `\u%04x`, c)
	}
	out := []string{
		V, hex.EncodeToString([]byte(V)), strings.ToUpper(hex.EncodeToString([]byte(V))),
		percent.String(), strings.ToUpper(percent.String()), entities.String(), escapes.String(),
	}
	for i := range 3 {
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			s := enc.EncodeToString([]byte(strings.Repeat("x", i) + V))
			out = append(out, s[4:len(s)-4])
		}
	}
	return out
}

// clientTLS completes a handshake against roots.
func clientTLS(c net.Conn, name string, roots *x509.CertPool, protocol string) (*tls.Conn, error) {
	alpn := map[string][]string{"h1": {"http/1.1"}, "h2": {"h2"}}[protocol]
	conn := tls.Client(c, &tls.Config{ServerName: name, RootCAs: roots, NextProtos: alpn})
	return conn, conn.Handshake()
}

var errNotArrived = errors.New("the upstream did not get the value")
