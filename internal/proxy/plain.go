package proxy

import (
	"net"
	"slices"

	"github.com/cutoutdev/cutout/internal/hello"
	"github.com/cutoutdev/cutout/internal/policy"
)

// servePlain handles a flow that begins with an HTTP/1 request in clear. It
// is parsed only if it may be with a secret's host, by its address or by its
// own word: requests with a placeholder are then told why they fail instead
// of having the useless text go out. Nothing is ever substituted here, so a
// later request that names another host gains nothing.
func (f *flow) servePlain(h hello.Hello, up net.Conn) {
	pinned := f.pinnedForSecret()
	if !pinned && !f.namesSecret(h) {
		f.splice(up)
		return
	}
	s := &session{flow: f, raw: up, scrubAlways: pinned}
	s.facts = policy.Facts{Port: f.dst.Port()}
	s.serveHTTP1(f.guest)
}

// namesSecret reports whether the first request may mean a secret's host.
func (f *flow) namesSecret(h hello.Hello) bool {
	return slices.ContainsFunc(h.Hosts, f.set.HasHost)
}
