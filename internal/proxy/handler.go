package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"slices"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/reframe"
	"github.com/cutoutdev/cutout/internal/rewrite"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/websocket"
)

// ServeHTTP handles one request, whatever kind of connection it came on.
func (s *session) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	u := s.begin(s.facts.ServerName, func() {
		cancel()
		guest := http.NewResponseController(w)
		guest.SetReadDeadline(past)
		guest.SetWriteDeadline(past)
	})
	defer u.end()
	q, ok := s.read(r.WithContext(ctx), u)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	defer s.over()
	s.begun.Add(1)
	if s.requests.Add(1) > maxRequests {
		q.refuse(w, refused(policy.LimitReached))
		return
	}
	if no := q.judge(); no != nil {
		q.refuse(w, no)
		return
	}
	if s.gone() {
		panic(http.ErrAbortHandler) // as a server that closed meanwhile
	}
	out := q.outgoing()
	defer q.forget()
	if no := q.substitute(out); no != nil {
		q.refuse(w, no)
		return
	}
	if q.in.ContentLength != 0 {
		room := q.frameRoom()
		if !s.held.Take(room) {
			q.refuse(w, refused(policy.LimitReached))
			return
		}
		defer s.held.Give(room)
		no := q.carry(out)
		defer q.body.settle(w)
		if no != nil {
			q.refuse(w, no)
			return
		}
	}
	if no := q.record(); no != nil {
		q.refuse(w, no)
		return
	}
	q.forward(w, out)
}

// outgoing is the request as it goes on, its placeholders still in place.
func (q *request) outgoing() *http.Request {
	scheme := "http"
	host := q.in.Host // plain: as the guest wrote it
	if q.facts.TLS {
		scheme, host = "https", q.upstreamHost()
	}
	u, _ := targetURL(scheme, host, q.target) // judged
	out := &http.Request{
		Method:        q.in.Method,
		URL:           u,
		Host:          host,
		Header:        forwardable(q.in.Header),
		ContentLength: q.in.ContentLength,
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = nil // else net/http names itself
	}
	if q.searched() {
		q.scannable(out.Header)
	}
	if q.guarded() {
		delete(out.Header, websocket.FieldExtensions) // they compress, or nobody knows what
	}
	if q.upgrades != "" {
		out.Header.Set("Connection", "Upgrade")
		out.Header.Set("Upgrade", q.upgrades)
	}
	return out
}

// upstreamHost is the connection's name and port in canonical form.
func (q *request) upstreamHost() string {
	return hostPort(q.facts.ServerName, q.facts.Port)
}

// substitute replaces the placeholders of q.swap in out by markers.
func (q *request) substitute(out *http.Request) *refusal {
	// A field that Connection names ends here, RFC 9110 §7.6.1.
	q.swap = slices.DeleteFunc(q.swap, func(o rewrite.Occurrence) bool { return o.Field != "" && out.Header[o.Field] == nil })
	if len(q.swap) == 0 {
		return nil
	}
	q.touch()
	if _, err := q.upstream(); err != nil {
		return undialled(err)
	}
	if q.seal == nil { // plain, and nobody meant to send a value here when it began
		return refused(policy.PlainHTTP)
	}
	target, err := q.rules.finder.Substitute(out.Header, q.target,
		func(o rewrite.Occurrence) bool { return slices.Contains(q.swap, o) },
		func(parts []secret.Part, enc secret.Encoding) (string, error) {
			marker, err := q.seal.Register(parts, enc)
			if err == nil {
				q.markers = append(q.markers, marker)
			}
			return marker, err
		})
	if err != nil {
		return q.unsealed(err)
	}
	out.URL, _ = targetURL(out.URL.Scheme, out.URL.Host, target) // as well-formed as before
	return nil
}

// record puts the substitutions in the head on record: before anything is
// written, and after all that may still refuse the request.
func (q *request) record() *refusal {
	for i, o := range q.swap {
		if slices.Contains(q.swap[:i], o) {
			continue
		}
		e := q.event(audit.Substituted)
		e.Secret, e.Surface = o.Secret.Name, o.Position.String()
		if err := q.cfg.Audit.Append(e); err != nil {
			return refused(policy.AuditUnavailable)
		}
	}
	return nil
}

// unsealed is the refusal of a head in which a value cannot be written.
func (q *request) unsealed(err error) *refusal {
	if q.gone() {
		panic(http.ErrAbortHandler)
	}
	r := refused(policy.LimitReached)
	if errors.Is(err, secret.ErrUnsafe) || errors.Is(err, secret.ErrShort) {
		r = refused(policy.Unsafe)
	}
	r.detail = err.Error()
	return r
}

// forget takes back the markers that were not used.
func (q *request) forget() {
	for _, m := range q.markers {
		q.seal.Forget(m)
	}
}

// forward sends out upstream and the answer back.
func (q *request) forward(w http.ResponseWriter, out *http.Request) {
	if q.in.ProtoMajor == 1 {
		// An answer may begin before the body has ended.
		http.NewResponseController(w).EnableFullDuplex()
	}
	up, err := q.upstream()
	if err != nil {
		q.refuse(w, undialled(err))
		return
	}
	early := &interim{q: q, w: w}
	ctx := httptrace.WithClientTrace(q.in.Context(), &httptrace.ClientTrace{Got1xxResponse: early.send})
	resp, err := up.RoundTrip(out.WithContext(ctx))
	early.stop()
	if err != nil {
		q.failed(w, err)
		return
	}
	defer resp.Body.Close()
	q.answered.Store(true)
	if resp.StatusCode == http.StatusSwitchingProtocols {
		q.tunnel(w, out, resp)
		return
	}
	q.respond(w, resp)
}

// framingRefusal is the refusal of a body that is not well-formed, or nil.
func framingRefusal(err error) *refusal {
	framing := new(reframe.Error)
	if !errors.As(err, &framing) {
		return nil
	}
	no := refused(policy.MalformedRequest)
	no.detail = string(framing.Reject.Fault)
	return no
}

// failed answers a request that got no response. If the connection has
// worked before and its server has merely closed it, the guest sees what it
// would see without us and may try again.
func (q *request) failed(w http.ResponseWriter, err error) {
	if no := q.body.refusal(); no != nil {
		q.refuse(w, no)
		return
	}
	if no := framingRefusal(err); no != nil {
		// Its head has gone up; the message was left incomplete there.
		no.aborted = true
		q.refuse(w, no)
		return
	}
	if q.in.Context().Err() != nil || q.answered.Load() && q.in.ProtoMajor == 1 {
		panic(http.ErrAbortHandler)
	}
	no := refused(policy.UpstreamFailed)
	if errors.Is(err, context.DeadlineExceeded) {
		no.detail = "it took too long"
	}
	q.refuse(w, no)
}
