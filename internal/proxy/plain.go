package proxy

import (
	"net"
	"slices"

	"github.com/cutoutdev/cutout/internal/conntrack"
	"github.com/cutoutdev/cutout/internal/hello"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/reframe"
	"github.com/cutoutdev/cutout/internal/secret"
)

// servePlain handles a flow that begins with an HTTP/1 request in clear. It
// is parsed only if it may be with a secret's host, by its address or by its
// own word: requests with a placeholder are then told why they fail instead
// of having the useless text go out. A value goes out only for a secret that
// may be sent in clear to this very host.
func (f *flow) servePlain(h hello.Hello, up net.Conn) {
	pinned := f.pinnedForSecret()
	if !pinned && !f.namesSecret(h) {
		f.splice(up)
		return
	}
	f.entry.Becomes(conntrack.HTTP)
	s := &session{flow: f, raw: up, scrubAlways: pinned}
	s.facts = policy.Facts{Port: f.dst.Port(), Reached: !f.way.proxied}
	s.serveHTTP1(f.guest)
}

// namesSecret reports whether the first request may mean a secret's host.
func (f *flow) namesSecret(h hello.Hello) bool {
	return slices.ContainsFunc(h.Hosts, f.set.HasHost)
}

// plainFacts establishes what TLS would have: whom the connection is with,
// by the request's own word and the pin of that name. HTTP/1 serves one
// request after the other, so s.first needs no lock.
func (s *session) plainFacts(f *policy.Facts, head reframe.Head) {
	f.ServerName = f.Authority.Host
	f.Pinned = s.pinned(f.ServerName)
	// An absolute-form target means the server itself where the server's
	// name was asked for, and otherwise a proxy, RFC 9112 §3.2.2.
	f.Direct = !head.Absolute || f.Pinned
	a := f.Authority
	if a.Port == 0 {
		a.Port = 80
	}
	if s.first == (hostname.Authority{}) {
		s.first = a
	}
	f.OneName = a == s.first
}

// sendsPlain reports whether some secret may be sent to name in clear.
func sendsPlain(set *secret.Set, name hostname.Name) bool {
	return slices.ContainsFunc(set.All(), func(s *secret.Secret) bool { return slices.Contains(s.Plain, name) })
}
