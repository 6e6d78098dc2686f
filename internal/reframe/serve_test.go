package reframe

import (
	"context"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// A script is a guest that sends given segments, then ends its side, and
// keeps what it is sent.
type script struct {
	mu       sync.Mutex
	segments [][]byte
	got      []byte
	closed   chan struct{}
}

func newScript(in string, n int) *script {
	s := &script{closed: make(chan struct{})}
	for b := []byte(in); len(b) > 0; b = b[min(n, len(b)):] {
		s.segments = append(s.segments, b[:min(n, len(b))])
	}
	return s
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.segments) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.segments[0])
	if s.segments[0] = s.segments[0][n:]; len(s.segments[0]) == 0 {
		s.segments = s.segments[1:]
	}
	return n, nil
}

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, p...)
	return len(p), nil
}

func (s *script) Close() error {
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	return nil
}

func (s *script) CloseWrite() error                { return nil }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// oneConn is a listener for one connection.
type oneConn struct {
	net.Listener
	c    chan net.Conn
	done chan struct{}
}

func listenOne(c net.Conn) *oneConn {
	l := &oneConn{c: make(chan net.Conn, 1), done: make(chan struct{})}
	l.c <- c
	return l
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.c:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }
func (l *oneConn) Close() error {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
	return nil
}

type connKey struct{}

func connOf(r *http.Request) *Conn { return r.Context().Value(connKey{}).(*Conn) }

// serve has net/http serve guest through a Conn, and returns it.
func serve(guest net.Conn, cfg Config, h http.Handler) (*Conn, *http.Server) {
	c := NewConn(guest, cfg)
	srv := &http.Server{
		Handler:     h,
		ErrorLog:    log.New(io.Discard, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	if os.Getenv("REFRAME_DEBUG") != "" {
		srv.ErrorLog = nil
	}
	go srv.Serve(listenOne(c))
	return c, srv
}

// A recorder serves requests and keeps them.
type recorder struct {
	t  testing.TB
	mu sync.Mutex
	q  []served
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	h, ok := connOf(q).Claim(q)
	if !ok {
		r.t.Errorf("a request that was not handed on is served: %s %s", q.Method, q.RequestURI)
		panic(http.ErrAbortHandler)
	}
	if q.RequestURI != h.Target || q.URL.String() != h.Target || q.Method != h.Method || q.Host != h.Host {
		r.t.Errorf("head %+v and request %s %s %s differ", h, q.Method, q.RequestURI, q.Host)
	}
	if q.ContentLength != h.Length || h.Index != uint64(len(r.q))+1 {
		r.t.Errorf("head %+v: length %d, index %d", h, q.ContentLength, len(r.q)+1)
	}
	body, err := io.ReadAll(q.Body)
	s := served{
		Method: q.Method, Target: h.Target, Host: q.Host, Header: q.Header.Clone(),
		Body: string(body), Whole: err == nil, Last: q.Close || h.Minor == 0,
	}
	if len(q.Trailer) > 0 {
		s.Trailer = q.Trailer.Clone()
	}
	if err != nil { // what net/http makes of trailers that it could not read is of no interest
		s.Trailer = nil
	}
	r.mu.Lock()
	r.q = append(r.q, s)
	r.mu.Unlock()
	w.Header().Set("Content-Type", "x/served") // unlike what net/http says of its own
	io.WriteString(w, "served")
}

// run serves in, cut into segments of n bytes, and returns the requests that
// were served and what the guest was sent.
func run(t testing.TB, in string, n int, cfg Config) ([]served, string) {
	guest, rec := newScript(in, n), &recorder{t: t}
	_, srv := serve(guest, cfg, rec)
	select {
	case <-guest.closed:
	case <-time.After(30 * time.Second):
		t.Fatalf("the connection hangs for %q", in)
	}
	srv.Close()
	rec.mu.Lock()
	defer rec.mu.Unlock()
	guest.mu.Lock()
	defer guest.mu.Unlock()
	return rec.q, string(guest.got)
}

// normal drops from both sides what net/http moves out of a header.
func normal(qq []served) []served {
	out := make([]served, len(qq))
	for i, q := range qq {
		q.Header = q.Header.Clone()
		for _, k := range []string{"Host", "Transfer-Encoding", "Trailer", "Content-Length"} {
			delete(q.Header, k)
		}
		if len(q.Header["Pragma"]) > 0 {
			delete(q.Header, "Cache-Control") // net/http adds one
		}
		q.Trailer = q.Trailer.Clone()
		maps.DeleteFunc(q.Trailer, func(_ string, v []string) bool { return len(v) == 0 }) // announced only
		if len(q.Trailer) == 0 {
			q.Trailer = nil
		}
		q.Last = false
		out[i] = q
	}
	return out
}

func ownError(got string) bool {
	return strings.Contains(got, "text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")
}
