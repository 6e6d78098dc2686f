package secret

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// newUpstream starts a TLS server of net/http with both protocols.
func newUpstream(t testing.TB, h http.HandlerFunc) *httptest.Server {
	u := httptest.NewUnstartedServer(h)
	u.EnableHTTP2 = true
	u.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	u.StartTLS()
	t.Cleanup(u.Close)
	return u
}

// dial connects net/http's client to addr through a seal, as the boundary
// does.
func dial(addr string, cfg *tls.Config, http2 bool, st *Store) (*http.ClientConn, *Seal, error) {
	cfg = cfg.Clone()
	cfg.NextProtos = []string{"http/1.1"}
	protocols := new(http.Protocols)
	if http2 {
		cfg.NextProtos = []string{"h2"}
		protocols.SetUnencryptedHTTP2(true) // over a connection that is not a *tls.Conn
	} else {
		protocols.SetHTTP1(true)
	}
	conn, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		return nil, nil, err
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != cfg.NextProtos[0] {
		return nil, nil, fmt.Errorf("negotiated %q", got)
	}
	seal := NewSeal(conn, http2, st)
	connect := func(context.Context, string, string) (net.Conn, error) { return seal, nil }
	tr := &http.Transport{Protocols: protocols, DialTLSContext: connect, DialContext: connect, DisableCompression: true}
	cc, err := tr.NewClientConn(context.Background(), "https", addr)
	return cc, seal, err
}

func dialUpstream(t testing.TB, u *httptest.Server, http2 bool, st *Store) (*http.ClientConn, *Seal) {
	t.Helper()
	cfg := u.Client().Transport.(*http.Transport).TLSClientConfig
	cc, seal, err := dial(u.Listener.Addr().String(), cfg, http2, st)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc, seal
}

func bothProtocols(t *testing.T, f func(t *testing.T, http2 bool)) {
	for _, p := range []string{"h1", "h2"} {
		t.Run(p, func(t *testing.T) { f(t, p == "h2") })
	}
}

// TestUpstreamGetsExactHeaders: real client, real TLS, real server.
func TestUpstreamGetsExactHeaders(t *testing.T) {
	bothProtocols(t, func(t *testing.T, http2 bool) {
		st := newStore(t)
		v := load(t, st, "s3cretvalue-0001")
		long := strings.Repeat("0123456789abcdef", 2500) // over several frames and records
		w := load(t, st, long)
		type seen struct {
			Header, Trailer http.Header
			URI, Body       string
		}
		var got seen
		u := newUpstream(t, func(_ http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			got = seen{r.Header.Clone(), r.Trailer.Clone(), r.RequestURI, string(body)}
		})
		cc, seal := dialUpstream(t, u, http2, st)
		for i := range 5 {
			m1 := register(t, seal, Raw, Part{Value: v})
			m2 := register(t, seal, Base64, Part{Text: fmt.Sprint("user", i, ":")}, Part{Value: v})
			m3 := register(t, seal, Raw, Part{Value: w})
			m4 := register(t, seal, Raw, Part{Value: v})
			body := io.Reader(http.NoBody)
			if i%2 == 1 {
				body = io.MultiReader(strings.NewReader("body "), strings.NewReader(strings.Repeat("x", 100000)))
			}
			req, _ := http.NewRequest("POST", "https://"+u.Listener.Addr().String()+"/p?key="+m4, body)
			req.Header = http.Header{
				"Authorization": {"Basic " + m2},
				"X-Api-Key":     {m1},
				"X-Long":        {"a " + m3 + " z"},
				"X-Plain":       {fmt.Sprint("plain ", i)},
				"User-Agent":    {""},
			}
			if i == 3 {
				req.Trailer = http.Header{"X-End": {"end"}}
			}
			resp, err := cc.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			want := seen{
				Header: http.Header{
					"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(fmt.Sprint("user", i, ":s3cretvalue-0001")))},
					"X-Api-Key":     {"s3cretvalue-0001"},
					"X-Long":        {"a " + long + " z"},
					"X-Plain":       {fmt.Sprint("plain ", i)},
				},
				URI: "/p?key=s3cretvalue-0001",
			}
			if i%2 == 1 {
				want.Body = "body " + strings.Repeat("x", 100000)
			}
			if i == 3 {
				want.Trailer = http.Header{"X-End": {"end"}}
			}
			if n := got.Header.Get("Content-Length"); n == "0" {
				got.Header.Del("Content-Length") // h1 says it, h2 need not
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("request %d (-want +got):\n%s", i, diff)
			}
			for _, m := range []string{m1, m2, m3, m4} {
				seal.Forget(m)
			}
		}
		if n := len(st.blocks); n != 2 {
			t.Errorf("%d blocks in use, want the two values'", n)
		}
	})
}

// cause returns why the seal cut the connection, if it did.
func (s *Seal) cause() error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	return s.err
}

// gone reports whether net/http has closed the connection by itself. On
// HTTP/1 it does when its write loop is not scheduled within 50 ms after an
// early answer (maxWriteWaitBeforeConnReuse), as on a busy machine.
func (s *Seal) gone() bool {
	select {
	case <-s.closed:
		return s.cause() == nil
	default:
		return false
	}
}

// TestConcurrentRequests: a thousand requests, each with its own credential,
// over one h2 connection; and over eight h1 connections.
func TestConcurrentRequests(t *testing.T) {
	bothProtocols(t, func(t *testing.T, http2 bool) {
		st := newStore(t)
		v := load(t, st, "s3cretvalue-0001")
		u := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
			user, pass, _ := r.BasicAuth()
			if pass != "s3cretvalue-0001" || r.Header.Get("X-Api-Key") != "k s3cretvalue-0001" || r.Header.Get("X-Id") != user {
				w.WriteHeader(http.StatusForbidden)
			}
		})
		const workers, each = 40, 25
		var conns []*http.ClientConn
		var seals []*Seal
		n := workers
		if http2 {
			n = 1
		}
		for range n {
			cc, seal := dialUpstream(t, u, http2, st)
			conns, seals = append(conns, cc), append(seals, seal)
		}
		var wg sync.WaitGroup
		for worker := range workers {
			wg.Go(func() {
				cc, seal := conns[worker%n], seals[worker%n]
				for i := range each {
					id := fmt.Sprint(worker, ".", i)
					err := send(cc, seal, u.Listener.Addr().String(), id, v)
					for err != nil && !http2 && seal.gone() {
						cc, seal = dialUpstream(t, u, http2, st)
						err = send(cc, seal, u.Listener.Addr().String(), id, v)
					}
					if err != nil {
						t.Error(id, err, seal.cause())
						return
					}
				}
			})
		}
		wg.Wait()
		if len(st.blocks) != 1 || len(st.slot) != slots {
			t.Errorf("%d blocks in use, %d slots free", len(st.blocks), len(st.slot))
		}
	})
}

// send makes one request with credentials of its own.
func send(cc *http.ClientConn, seal *Seal, addr, id string, v Value) error {
	m1, err := seal.Register([]Part{{Text: id + ":"}, {Value: v}}, Base64)
	if err != nil {
		return err
	}
	defer seal.Forget(m1)
	m2, err := seal.Register([]Part{{Value: v}}, Raw)
	if err != nil {
		return err
	}
	defer seal.Forget(m2)
	req, err := http.NewRequest("GET", "https://"+addr, nil)
	if err != nil {
		return err
	}
	req.Header = http.Header{"Authorization": {"Basic " + m1}, "X-Api-Key": {"k " + m2}, "X-Id": {id}}
	resp, err := cc.RoundTrip(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		return errors.New("upstream got another credential")
	}
	return nil
}

func BenchmarkRequest(b *testing.B) {
	st := newStore(b)
	v := load(b, st, strings.Repeat("k", 40))
	u := newUpstream(b, func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 1024)) })
	for _, p := range []string{"h1", "h2"} {
		for _, sealed := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/sealed=%v", p, sealed), func(b *testing.B) {
				cc, seal := dialUpstream(b, u, p == "h2", st)
				if !sealed {
					cc = dialBare(b, u, p == "h2")
				}
				b.ReportAllocs()
				for b.Loop() {
					credential := "plain"
					if sealed {
						credential = register(b, seal, Raw, Part{Value: v})
					}
					req, _ := http.NewRequest("GET", "https://"+u.Listener.Addr().String(), nil)
					req.Header.Set("Authorization", "Bearer "+credential)
					req.Header.Set("Accept", "application/json")
					resp, err := cc.RoundTrip(req)
					if err != nil {
						b.Fatal(err)
					}
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					if sealed {
						seal.Forget(credential)
					}
				}
			})
		}
	}
}

// bare hides the *tls.Conn from net/http, as a seal does.
type bare struct{ net.Conn }

func dialBare(b *testing.B, u *httptest.Server, http2 bool) *http.ClientConn {
	cfg := u.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetUnencryptedHTTP2(http2)
	cfg.NextProtos = []string{map[bool]string{true: "h2", false: "http/1.1"}[http2]}
	connect := func(context.Context, string, string) (net.Conn, error) {
		c, err := tls.Dial("tcp", u.Listener.Addr().String(), cfg)
		return bare{c}, err
	}
	tr := &http.Transport{Protocols: protocols, DialTLSContext: connect, DialContext: connect}
	cc, err := tr.NewClientConn(context.Background(), "https", u.Listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cc.Close() })
	return cc
}
