package testnet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"hash"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// A Request is what an upstream received.
type Request struct {
	Proto      string // HTTP/1.1, HTTP/2.0
	Method     string
	Target     string // request target or :path, byte for byte
	Host       string // Host or :authority
	ServerName string // SNI, "" without TLS
	TLS        bool
	Header     http.Header
	Lines      []string // header lines in the order sent; HTTP/1 only, nil past 1 MiB of connection
	Body       []byte   // the first 64 KiB
	BodySize   int64
	BodySHA256 string // hex
	BodyErr    string // why the body did not end properly, "" if it did
	Trailer    http.Header
}

// Text returns everything in the request in one string, to be searched.
func (r Request) Text() string {
	var b strings.Builder
	b.WriteString(r.Method + " " + r.Target + " " + r.Proto + "\nHost: " + r.Host + "\n")
	r.Header.Write(&b)
	b.WriteString("\n")
	b.Write(r.Body)
	r.Trailer.Write(&b)
	return b.String()
}

// Counts tell what happened to connections.
type Counts struct {
	Accepted   int // TCP connections
	Handshakes int // TLS handshakes completed
	Failed     int // TLS handshakes failed
}

type recorder struct {
	mu       sync.Mutex
	requests []Request
	counts   Counts
	changed  chan struct{}
}

// Requests returns what was received so far, in the order in which the
// requests ended.
func (r *recorder) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// Counts returns what happened so far to connections.
func (r *recorder) Counts() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts
}

// Reset forgets the requests and counts.
func (r *recorder) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests, r.counts = nil, Counts{}
}

// Wait returns the requests as soon as there are n of them, or what there is
// and the context's error.
func (r *recorder) Wait(ctx context.Context, n int) ([]Request, error) {
	for {
		r.mu.Lock()
		got := slices.Clone(r.requests)
		if r.changed == nil {
			r.changed = make(chan struct{})
		}
		changed := r.changed
		r.mu.Unlock()
		if len(got) >= n {
			return got, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return got, ctx.Err()
		}
	}
}

func (r *recorder) add(f func(*Counts)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.counts)
}

func (r *recorder) append(q Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, q)
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

type connKey struct{}

// record wraps h so that each request is kept, whole, when it is over.
func (r *recorder) record(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		rec := Request{
			Proto: q.Proto, Method: q.Method, Target: q.RequestURI, Host: q.Host, Header: q.Header.Clone(),
		}
		state := q.TLS
		if t, ok := q.Context().Value(connKey{}).(*teeConn); ok {
			state, rec.Lines = t.tls, t.head(q)
		}
		if state != nil {
			rec.TLS, rec.ServerName = true, state.ServerName
		}
		body := &bodyTee{ReadCloser: q.Body, sum: sha256.New()}
		q.Body = body
		defer func() {
			io.Copy(io.Discard, body) // what the handler left is part of the record
			rec.Body, rec.BodySize, rec.BodyErr = body.first, body.n, body.err
			rec.BodySHA256 = hex.EncodeToString(body.sum.Sum(nil))
			rec.Trailer = q.Trailer.Clone()
			r.append(rec)
		}()
		h.ServeHTTP(w, q)
	})
}

const maxFirst = 64 << 10

type bodyTee struct {
	io.ReadCloser
	sum   hash.Hash
	first []byte
	n     int64
	err   string
}

func (b *bodyTee) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.sum.Write(p[:n])
	b.n += int64(n)
	if room := maxFirst - len(b.first); room > 0 {
		b.first = append(b.first, p[:min(n, room)]...)
	}
	if err != nil && err != io.EOF && b.err == "" {
		b.err = err.Error()
	}
	return n, err
}

// maxTee bounds what is kept of a connection to find header lines in.
const maxTee = 1 << 20

// A teeConn keeps the first bytes that it read.
type teeConn struct {
	net.Conn
	tls *tls.ConnectionState

	mu  sync.Mutex
	raw []byte
	off int // behind the last head found
}

func (t *teeConn) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	t.mu.Lock()
	t.raw = append(t.raw, p[:min(n, maxTee-len(t.raw))]...)
	t.mu.Unlock()
	return n, err
}

// head returns the header lines of q as they were sent.
func (t *teeConn) head(q *http.Request) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	line := []byte(q.Method + " " + q.RequestURI + " " + q.Proto + "\r\n")
	i := bytes.Index(t.raw[t.off:], line)
	if i < 0 {
		return nil
	}
	start := t.off + i + len(line)
	end := bytes.Index(t.raw[start-2:], []byte("\r\n\r\n"))
	if end < 0 {
		return nil
	}
	t.off = start + end
	return strings.FieldsFunc(string(t.raw[start:t.off]), func(r rune) bool { return r == '\r' || r == '\n' })
}
