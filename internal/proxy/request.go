package proxy

import (
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/reframe"
	"github.com/cutoutdev/cutout/internal/rewrite"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/websocket"
)

// A request is one request of the guest on an opened connection: what it
// said, what is known about it and what is to be done with it.
type request struct {
	*session
	in       *http.Request
	use      *use
	rules    *rules // one snapshot of the secrets, DESIGN §5.8
	facts    policy.Facts
	target   string               // origin-form or "*", byte for byte
	bound    bool                 // its host is one of some secret
	mode     Scrub                // how its answer is searched
	upgrades string               // the protocol that it asks to change to
	socket   *websocket.Handshake // what it asks for, if that is a WebSocket
	swap     []rewrite.Occurrence // placeholders to be replaced
	markers  []string             // registered for it
	body     *body                // nil if it has none
	slice    *slice               // that it asks for; nil: the whole
	scrubs   []string             // secrets whose values were taken out of the answer
}

// read establishes the facts of a request. False: it is not one that may be
// served.
func (s *session) read(r *http.Request, u *use) (*request, bool) {
	q := &request{session: s, in: r, use: u, rules: u.rules, facts: s.facts}
	if r.ProtoMajor == 2 {
		q.target = r.RequestURI
		a, err := hostname.ParseAuthority(r.Host)
		// RFC 9113 §8.3.1: a client that writes HTTP/2 uses :authority, and
		// net/http fills it from a Host field if it is missing. Either way
		// a Host field is a second opinion.
		q.facts.Authority, q.facts.AuthorityOK = a, err == nil && len(r.Header["Host"]) == 0
	} else {
		head, ok := s.frames.Claim(r)
		if !ok {
			return nil, false
		}
		q.target, q.upgrades = head.Origin(), head.Upgrade
		q.facts.Authority, q.facts.AuthorityOK = head.Authority, head.AuthorityOK
		if !q.facts.TLS {
			s.plainFacts(&q.facts, head)
		}
	}
	q.facts.Method, q.facts.Target, q.facts.Header = r.Method, q.target, r.Header
	q.bound = q.rules.set.HasHost(q.host())
	q.mode = q.scrubMode()
	return q, true
}

// host is the name that the request is for: on TLS that of the connection.
func (q *request) host() hostname.Name { return q.facts.ServerName }

// oneName reports whether the connection is for requests to one name only:
// one on which a value may go.
func (q *request) oneName() bool {
	return q.facts.TLS || q.facts.Direct && (sendsPlain(q.rules.set, q.first.Host) || sendsPlain(q.rules.set, q.host()))
}

// judge decides what is to be done with the request. Nil: forward it, with
// the placeholders of q.swap replaced.
func (q *request) judge() *refusal {
	if q.told != policy.None {
		r := refused(q.told)
		r.detail = q.toldMore
		return r
	}
	if q.oneName() && !policy.SameAuthority(q.facts) {
		return refused(policy.AuthorityMismatch) // one connection, one name
	}
	if r := q.wellFormed(); r != nil {
		return r
	}
	if r := q.foreign(); r != nil {
		return r
	}
	if q.rules.err != nil && q.searched() {
		r := refused(policy.LimitReached) // its answer could not be searched
		r.detail = "no memory to search answers"
		return r
	}
	found := q.rules.finder.Head(q.in.Method, q.in.RequestURI, q.in.Host, q.in.Header)
	if len(found) > rewrite.MaxOccurrences {
		r := refused(policy.TooMany)
		r.secret, r.surface = found[0].Secret, found[0].Position.String()
		return r
	}
	for _, o := range found {
		if r := q.judgeOne(o); r != nil {
			r.secret, r.surface = o.Secret, o.Position.String()
			return r
		}
	}
	for _, o := range q.binaryMetadata() {
		if r := q.judgeBinary(o); r != nil {
			r.secret, r.surface = o.Secret, o.Position.String()
			return r
		}
	}
	return q.handshake()
}

// judgeOne decides about one placeholder in the head, the table of DESIGN §3.
func (q *request) judgeOne(o rewrite.Occurrence) *refusal {
	if o.Position.Never() {
		return refused(policy.BadPosition)
	}
	if d := q.decide(o.Secret); !d.Substitute {
		return q.violation(o, d.Reason)
	}
	if m := q.in.Method; strings.EqualFold(m, "TRACE") || strings.EqualFold(m, "TRACK") {
		return refused(policy.TraceMethod)
	}
	if !rewrite.Allowed(o) {
		r := refused(policy.SurfaceOff)
		r.detail = offDetail(o)
		return r
	}
	q.swap = append(q.swap, o)
	return nil
}

// offDetail says where a placeholder stands that is not replaced there, and
// how that is changed.
func offDetail(o rewrite.Occurrence) string {
	place := o.Position.String()
	if o.Position != rewrite.Header {
		return "it stands in the " + place + "; to permit that: --surface " + o.Secret.Name + "=header,basic," + place
	}
	name := textproto.CanonicalMIMEHeaderKey(o.Field)
	if rewrite.Unnamed(name) {
		return "no value may go into the header " + name
	}
	return "it stands in the header " + name + "; to permit that: --surface " + o.Secret.Name + "=header,basic,header:" + name
}

// violation is what happens to a placeholder whose secret may not be written.
func (q *request) violation(o rewrite.Occurrence, reason policy.Reason) *refusal {
	switch q.violationOf(o.Secret).Head(q.host()) {
	case secret.Passthrough:
		e := q.event(audit.Carried)
		e.Secret, e.Surface, e.Reason = o.Secret.Name, o.Position.String(), reason
		q.audit(e)
		return nil
	case secret.BlockAndTerminate:
		r := refused(reason)
		r.terminate = true
		return r
	}
	return refused(reason)
}

// wellFormed refuses what net/http lets pass and cannot send on as it is.
func (q *request) wellFormed() *refusal {
	switch {
	case q.in.Method == http.MethodConnect:
		return refused(policy.Tunnelled)
	case !q.lengthAgrees():
		r := refused(policy.MalformedRequest)
		r.detail = "the Content-Length is not that of the body"
		return r
	}
	_, ok := targetURL("https", "", q.target)
	if !ok || q.in.ProtoMajor == 2 && !reframe.WellFormed(q.in.Method, q.target) {
		r := refused(policy.MalformedRequest)
		r.detail = "method or path cannot be sent on as they are"
		return r
	}
	return nil
}

// lengthAgrees checks what net/http does not for HTTP/2: that there is one
// Content-Length at most, and none beside a head that ends the message. That
// a body has its length is checked as it is read.
func (q *request) lengthAgrees() bool {
	declared := q.in.Header["Content-Length"]
	switch len(declared) {
	case 0:
		return true
	case 1:
		return declared[0] == strconv.FormatInt(q.in.ContentLength, 10)
	}
	return false
}

// event begins an audit event about the request, from the guest's bytes.
func (q *request) event(kind string) audit.Event {
	return audit.Event{
		Event:  kind,
		Host:   string(q.host()),
		Dst:    q.dst.String(),
		Method: q.in.Method,
		Path:   pathOf(q.target),
	}
}

// targetURL is the URL that makes net/http write target byte for byte. Path
// and query cannot be parsed for that: %2f becomes a slash as soon as one
// other byte is not to url's liking.
func targetURL(scheme, host, target string) (*url.URL, bool) {
	u := &url.URL{Scheme: scheme, Host: host}
	if !strings.HasPrefix(target, "//") {
		u.Opaque = target
		return u, target != ""
	}
	// An opaque part that begins with // would be taken for an authority.
	path, query, found := strings.Cut(target, "?")
	plain, err := url.PathUnescape(path)
	if err != nil {
		return nil, false
	}
	u.Path, u.RawPath = plain, path
	u.RawQuery, u.ForceQuery = query, found && query == ""
	return u, u.RequestURI() == target
}

// hopByHop are the fields that concern one connection, RFC 9110 §7.6.1, and
// those of a proxy that the guest takes us for.
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization",
	"Proxy-Authenticate", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// forwardable returns a copy of h without the fields of one hop.
func forwardable(h http.Header) http.Header {
	out := h.Clone()
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			out.Del(textproto.TrimString(name))
		}
	}
	for _, name := range hopByHop {
		delete(out, name)
	}
	if httpguts.HeaderValuesContainsToken(h["Te"], "trailers") {
		out["Te"] = []string{"trailers"} // gRPC servers ask for it
	}
	return out
}
