package proxy

import (
	"io"
	"net/http"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// A body is a request body on its way up, and the trailers that follow it. It
// is unchanged but searched, so that placeholders that travel as inert text
// are on record, once for each secret.
type body struct {
	io.Reader
	q       *request
	in      io.ReadCloser
	trailer http.Header // of the outgoing request; nil if there can be none
	told    []*secret.Secret
	ended   bool
	end     chan struct{} // closed at its end
}

// carry makes the body of out.
func (q *request) carry(out *http.Request) {
	b := &body{q: q, in: q.in.Body, end: make(chan struct{})}
	b.Reader = q.rules.finder.Reader(q.in.Body, func(s *secret.Secret) { b.carried(s, "body") })
	if q.in.ContentLength < 0 {
		b.trailer = make(http.Header)
		for name := range q.in.Trailer {
			b.trailer[name] = nil // announced
		}
		out.Trailer = b.trailer
	}
	q.body, out.Body = b, b
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF && !b.ended {
		b.ended = true
		b.trailers()
		close(b.end)
	}
	return n, err
}

// trailers passes the trailers on. net/http writes them after it has seen the
// end of the body, in the same goroutine. They are never substituted.
func (b *body) trailers() {
	if b.trailer == nil {
		return
	}
	for _, o := range b.q.rules.finder.Trailer(b.q.in.Trailer) {
		b.carried(o.Secret, surface(o.Position))
	}
	for name, values := range b.q.in.Trailer {
		b.trailer[name] = values
	}
}

func (b *body) carried(s *secret.Secret, surface string) {
	for _, t := range b.told {
		if t == s {
			return
		}
	}
	b.told = append(b.told, s)
	e := b.q.event(audit.Carried)
	e.Secret, e.Surface = s.Name, surface
	if d := policy.Decide(b.q.facts, s); d.Substitute {
		e.Reason = policy.SurfaceOff
	} else {
		e.Reason = d.Reason
	}
	b.q.audit(e)
}

// Close leaves the guest's body to its server, which knows what to do with
// what was not read.
func (b *body) Close() error { return nil }

// settle is called when the response has ended. A server may answer before it
// has read everything; the rest is then not waited for.
func (b *body) settle(w http.ResponseWriter) {
	// As long as net/http's transport waits for the end of a write before
	// it gives the connection up.
	const grace = 50 * time.Millisecond
	select {
	case <-b.end:
		return
	case <-time.After(grace):
	}
	if b.q.in.ProtoMajor == 1 {
		// The server could not close a body that someone is reading.
		http.NewResponseController(w).SetReadDeadline(past)
	}
}
