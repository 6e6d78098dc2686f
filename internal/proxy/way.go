package proxy

import (
	"context"
	"errors"
	"net"

	"github.com/cutoutdev/cutout/internal/egress"
	"github.com/cutoutdev/cutout/internal/hello"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
)

// A way is how a flow's upstream is reached: at the address that was judged,
// or through an upstream proxy, which is asked for a name.
type way struct {
	proxied bool
	host    string // that the proxy is asked for
}

// wayFor is the way of a flow whose guest has said first.
func (f *flow) wayFor(first hello.Hello) way {
	if f.cfg.Egress == nil || f.to != f.dst {
		return way{}
	}
	name := f.meant(first)
	switch {
	case !f.blank && !f.cfg.Egress.Takes(name, f.to):
		return way{}
	case name == "":
		return way{true, f.to.Addr().String()}
	}
	return way{true, string(name)}
}

// meant is the name that an upstream proxy is asked for: one for which the
// address was resolved, the guest's own choice if it has said one. If it has
// said another, it means the address.
func (f *flow) meant(first hello.Hello) hostname.Name {
	said := first.Hosts
	if first.Kind == hello.TLS && first.Name != "" {
		said = []hostname.Name{first.Name}
	}
	switch {
	case f.named != "":
		return f.named
	case len(said) == 0:
		return f.name()
	}
	for _, n := range said {
		if f.pinned(n) {
			return n
		}
	}
	return ""
}

// dialsFirst reports whether the upstream is dialled before the guest is
// answered, so that its SYN meets the same fate as it would without us. Not
// where TLS may turn out to ask for a secret's host at an address that was not
// resolved for it: nobody dials that. Through an upstream proxy not where the
// guest must say first which of several names it means, nor with a secret's
// host: what the proxy says is told to the guest.
func (f *flow) dialsFirst() bool {
	if f.way.proxied {
		return !f.set.HasPort(f.dst.Port()) && !f.pinnedForSecret() && (f.named != "" || len(f.cfg.Pins.Names(f.dst.Addr())) < 2)
	}
	return f.pinnedForSecret() || !f.set.HasPort(f.dst.Port())
}

// redirect is called when the guest has said first. It gives up a connection
// with another than the one that is meant.
func (f *flow) redirect(first hello.Hello, up net.Conn) net.Conn {
	w := f.wayFor(first)
	if up != nil && w != f.way {
		up.Close()
		up = nil
	}
	f.way = w
	return up
}

func (f *flow) dial() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(f.ctx, dialLimit)
	defer cancel()
	if f.way.proxied {
		return f.cfg.Egress.Dial(ctx, f.way.host, f.to.Port())
	}
	return f.cfg.Dial(ctx, f.to)
}

// refusedBy is what err says: an upstream proxy has a reason.
func refusedBy(err error) (policy.Reason, string) {
	if e, ok := errors.AsType[*egress.Error](err); ok {
		return e.Reason, e.Detail
	}
	return policy.UpstreamFailed, ""
}

// failed records that dial did.
func (f *flow) failed(err error) {
	reason, detail := refusedBy(err)
	f.denied(reason, f.named, detail)
}

// undialled is the refusal of a request for which dial failed.
func undialled(err error) *refusal {
	reason, detail := refusedBy(err)
	r := refused(reason)
	r.detail = detail
	return r
}
