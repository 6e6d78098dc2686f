package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// goodIs makes serve what answers each connection to good.test, over TLS.
func (w *world) goodIs(serve func(net.Conn)) *testnet.Raw {
	cert := must(w.ca.Cert("good.test"))
	raw := must(testnet.StartRaw(testnet.RawConfig{Cert: &cert, Serve: serve}))
	w.t.Cleanup(func() { raw.Close() })
	w.to[goodAddr] = raw.Addr()
	return raw
}

// A lockedBuffer is written by several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// An upstream that answers twice: net/http quotes what it was not asked for
// in the standard log, which a keeper's crash report holds. C11.
func TestUnsolicitedAnswerIsNotLogged(t *testing.T) {
	var logged lockedBuffer
	defer log.SetOutput(log.Writer())
	log.SetOutput(&logged)
	w := newWorld(t, "h1")
	w.goodIs(func(c net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		answer := "HTTP/1.1 200 OK\r\nX-Echo: " + r.Header.Get("Authorization") + "\r\nContent-Length: 0\r\n\r\n"
		io.WriteString(c, answer+answer)
		io.Copy(io.Discard, c)
	})
	w.clean(w.get(w.client(), "https://good.test/", placeholder).all)
	time.Sleep(200 * time.Millisecond)
	w.clean(logged.String())
}

// A value in a field's name, whose case net/http changes. C1.
func TestEchoInFieldName(t *testing.T) {
	const token = "gHp_0123456789aBcDeFgHiJkLmN"
	folded := func(s string) bool { return strings.Contains(strings.ToLower(s), strings.ToLower(token)) }
	protocols(t, func(t *testing.T, protocol string) {
		for _, where := range []string{"header", "trailer", "unannounced trailer", "early"} {
			t.Run(where, func(t *testing.T) {
				w := newWorld(t, protocol,
					func(w *world) {
						secrets(func(w *world) []*secret.Secret {
							return []*secret.Secret{w.secret("API_KEY", placeholder, token, "good.test", 443)}
						})(w)
					},
					handler(func(rw http.ResponseWriter, r *http.Request) {
						name := "X-" + strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ") + "-Y"
						switch where {
						case "header":
							rw.Header()[name] = []string{"1"}
							io.WriteString(rw, "ok")
						case "trailer":
							rw.Header().Set("Trailer", name)
							io.WriteString(rw, "ok")
							rw.(http.Flusher).Flush()
							rw.Header()[name] = []string{"1"}
						case "unannounced trailer":
							io.WriteString(rw, "ok")
							rw.(http.Flusher).Flush()
							rw.Header()[http.TrailerPrefix+name] = []string{"1"}
						case "early":
							rw.Header()[name] = []string{"1"}
							rw.WriteHeader(103)
							clear(rw.Header())
							io.WriteString(rw, "ok")
						}
					}))
				conn := w.dialTLS()
				var got lockedBuffer
				if protocol == "h1" {
					io.WriteString(conn, "GET / HTTP/1.1\r\nHost: good.test\r\nTE: trailers\r\n"+auth+"Connection: close\r\n\r\n")
					io.Copy(&got, conn)
					if !strings.Contains(got.String(), "ok") {
						t.Fatalf("got %q", got.String())
					}
				} else {
					conn.Close()
					c := w.raw2()
					c.request(1, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", "good.test", "te", "trailers", "authorization", "Bearer "+placeholder)
					all, ended := c.fields(1)
					if !ended {
						t.Fatalf("stream did not end: %q", all)
					}
					io.WriteString(&got, all)
				}
				if r := w.last(w.good, 1); r.Header.Get("Authorization") != "Bearer "+token {
					t.Fatalf("upstream got %q", r.Header)
				}
				if folded(got.String()) {
					t.Errorf("the guest reads the value: %q", got.String())
				}
				w.expect(audit.Scrubbed, policy.None)
			})
		}
	})
}

// fields returns all names and values on stream id up to its end.
func (c *raw2) fields(id uint32) (all string, ended bool) {
	var b strings.Builder
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return b.String(), false
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.framer.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			for _, h := range f.Fields {
				fmt.Fprintf(&b, "%s: %s\n", h.Name, h.Value)
			}
			if f.StreamEnded() {
				return b.String(), true
			}
		case *http2.DataFrame:
			b.Write(f.Data())
			if f.StreamEnded() {
				return b.String(), true
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return b.String(), false
		}
	}
}
