package keeper

import (
	"context"
	"net"
	"net/netip"
	"slices"

	"github.com/cutoutdev/cutout/internal/dns"
	"github.com/cutoutdev/cutout/internal/forward"
	"github.com/cutoutdev/cutout/internal/proxy"
)

// serveForward serves clients of a proxy at l, as guests are served.
// full is told when a client must wait.
func (b *boundary) serveForward(l net.Listener, px *proxy.Proxy, resolver *dns.Interceptor, full func()) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &forward.Server{
		Password: b.password, Full: full,
		Serve: func(ctx context.Context, src netip.AddrPort, t forward.Target, accept func() (net.Conn, error)) {
			b.forward(ctx, px, resolver, src, t, accept)
		},
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(ctx, l)
	}()
	b.endForward = func() {
		cancel()
		<-ended
	}
}

// forward tries the addresses of what a client asks for, one after the other.
func (b *boundary) forward(ctx context.Context, px *proxy.Proxy, resolver *dns.Interceptor, src netip.AddrPort, t forward.Target, accept func() (net.Conn, error)) {
	addrs := []netip.Addr{t.Addr}
	if t.Name != "" {
		addrs = resolver.Addresses(ctx, t.Name)
	} else if slices.ContainsFunc(b.plan.own(), func(p netip.Prefix) bool { return p.Contains(t.Addr) }) {
		return // it stands for a name, which was not asked for
	}
	for _, a := range addrs {
		refused := false
		px.ServeTCP(ctx, proxy.Flow{
			Src: src, Dst: netip.AddrPortFrom(a, t.Port), Name: t.Name,
			Accept: accept, Refuse: func() { refused = true },
		})
		if !refused {
			return
		}
	}
}
