package proxy

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// BenchmarkGet is a 1 KB GET with one header swap, gates, scrub and audit, on
// 16 connections, beside a bare pairing of net/http's server and client that
// does none of it. Client, proxy and upstream share the machine: only ratios
// inside one run mean anything.
func BenchmarkGet(b *testing.B) {
	body := strings.Repeat("0123456789abcdef", 64)
	for _, protocol := range []string{"h1", "h2"} {
		w := newWorld(b, protocol)
		cert := must(w.ca.Cert("good.test"))
		l := must(net.Listen("tcp", "127.0.0.1:0"))
		srv := &http.Server{
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: w.guestTLS().NextProtos},
			Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "Bearer "+value && r.Header.Get("Authorization") != "Bearer "+placeholder {
					rw.WriteHeader(403)
				}
				io.WriteString(rw, body)
			}),
		}
		if protocol == "h1" {
			srv.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
		}
		go srv.ServeTLS(l, "", "")
		b.Cleanup(func() { srv.Close() })
		w.to[goodAddr] = l.Addr().(*net.TCPAddr).AddrPort()

		b.Run("direct/"+protocol, func(b *testing.B) { w.load(b, l.Addr().String(), true) })
		b.Run("bare/"+protocol, func(b *testing.B) { w.load(b, w.bare(b, l.Addr().String()), true) })
		b.Run("cutout/"+protocol, func(b *testing.B) { w.load(b, "", false) })
	}
}

// load sends b.N requests over 16 connections.
func (w *world) load(b *testing.B, addr string, direct bool) {
	var clients []*http.Client
	for range 16 {
		c := w.client()
		if direct {
			c = w.direct(addr)
		}
		if err := fetch(c); err != nil {
			b.Fatal(err)
		}
		clients = append(clients, c)
	}
	b.ResetTimer()
	var next atomic.Int64
	done := make(chan error, len(clients))
	for _, c := range clients {
		go func() {
			for next.Add(1) <= int64(b.N) {
				if err := fetch(c); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range clients {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
	for _, c := range clients {
		c.CloseIdleConnections()
	}
}

// direct is a client that takes addr for every server.
func (w *world) direct(addr string) *http.Client {
	c := w.client()
	tr := c.Transport.(*http.Transport)
	tr.TLSClientConfig.RootCAs = w.ca.Pool()
	tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}
	return c
}

func fetch(c *http.Client) error {
	r, err := http.NewRequest("GET", "https://good.test/", nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+placeholder)
	resp, err := c.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode != 200 {
		err = http.ErrAbortHandler
	}
	return err
}

// bare is the least that a proxy of net/http does: a server whose handler
// forwards over one client connection per guest connection.
func (w *world) bare(b *testing.B, upstream string) string {
	cert := must(w.ca.Cert("good.test"))
	protocols := new(http.Protocols)
	protocols.SetHTTP1(w.protocol == "h1")
	protocols.SetHTTP2(w.protocol == "h2")
	type key struct{}
	srv := &http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, Protocols: protocols,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			tr := &http.Transport{Protocols: protocols, DisableCompression: true, TLSClientConfig: &tls.Config{RootCAs: w.ca.Pool(), ServerName: "good.test"}}
			return context.WithValue(ctx, key{}, must(tr.NewClientConn(context.Background(), "https", upstream)))
		},
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			out := r.Clone(r.Context())
			out.URL.Scheme, out.URL.Host, out.RequestURI = "https", r.Host, ""
			resp, err := r.Context().Value(key{}).(*http.ClientConn).RoundTrip(out)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			defer resp.Body.Close()
			copyHeader(rw.Header(), resp.Header)
			rw.WriteHeader(resp.StatusCode)
			io.Copy(rw, resp.Body)
		}),
	}
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	go srv.ServeTLS(l, "", "")
	b.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}
