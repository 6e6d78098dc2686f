package keeper

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/ca"
	"github.com/cutoutdev/cutout/internal/conntrack"
	"github.com/cutoutdev/cutout/internal/dns"
	"github.com/cutoutdev/cutout/internal/egress"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/frame"
	"github.com/cutoutdev/cutout/internal/pin"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/proxy"
	"github.com/cutoutdev/cutout/internal/relay"
	"github.com/cutoutdev/cutout/internal/secret"
)

// A boundary is the guest's only way out: a network stack at the end of its
// cable, the resolver and the proxy behind it.
type boundary struct {
	plan    *plan
	network *policy.Network
	conns   conntrack.Table
	pins    *pin.Table // nil = no network
	proxy   *proxy.Proxy
	ca      *ca.Authority
	stack   *netstack.Stack // nil = no network
	relay   *relay.Relay

	password   string // of clients of a proxy
	endForward func() // nil = there are none
}

// boundaryConfig is what a boundary is made of.
type boundaryConfig struct {
	spec      Spec
	set       func() *secret.Set
	store     *secret.Store
	login     secret.Value // of the upstream proxy; zero = none
	log       *audit.Log
	link      frame.Link   // of the guest's NIC, owned by the boundary; nil = no network
	forward   net.Listener // of clients of a proxy, instead of a link; nil = none
	terminate func(policy.Reason)
}

func newBoundary(cfg boundaryConfig) (*boundary, error) {
	mode, err := proxy.ParseMode(cfg.spec.TLS.Intercept)
	if err != nil {
		return nil, err
	}
	roots, err := newRoots(cfg.spec.TLS.CAs)
	if err != nil {
		return nil, err
	}
	limited := func(what string) {
		cfg.log.Append(audit.Event{Event: audit.Limited, Reason: policy.LimitReached, Detail: what})
	}
	bound := func(n hostname.Name) bool { return cfg.set().HasHost(n) }
	network := cfg.spec.Net.Policy()
	b := &boundary{plan: newPlan(cfg.spec.Net.ConnectTo), network: network}
	network.Own = b.plan.own()
	b.ca, err = ca.New(ca.Config{
		Allow: func(n hostname.Name) bool { return mode == proxy.All || bound(n) },
		Full:  func() { limited("certificates: the one used longest ago goes") },
	})
	if err != nil {
		return nil, err
	}
	if cfg.link == nil && cfg.forward == nil {
		return b, nil
	}
	pins := &pin.Table{
		Important: func(n hostname.Name) bool { return bound(n) || network.Mentions(n) },
		Full:      func() { limited("names and their addresses: the oldest goes") },
	}
	b.pins = pins
	gate := pins
	if cfg.forward != nil {
		gate = new(pin.Table) // a client's name stands for the pin, of its connection alone
	}
	pc := proxy.Config{
		Secrets: cfg.set, Store: cfg.store,
		CA: b.ca, Pins: gate, Audit: cfg.log, Network: network, Conns: &b.conns,
		ConnectTo: b.plan.connectTo, Host: b.plan.host,
		Roots: roots.any, RootsFor: roots.of,
		Intercept: mode, Bypass: cfg.spec.TLS.Bypass, NoVerify: cfg.spec.TLS.NoVerify,
		Scrub: cfg.spec.scrub, ScrubAll: cfg.spec.scrubsAll(),
		SpoolDir:    cfg.spec.Dirs.State,
		OnViolation: cfg.spec.OnViolation, Terminate: cfg.terminate,
	}
	var unknown func(hostname.Name) ([]netip.Addr, bool)
	if e := cfg.spec.Net.Egress; e != nil {
		up := egress.New(*e)
		up.Roots, up.Store, up.Login = roots.any, cfg.store, cfg.login
		pc.Egress = up
		if e.Names {
			u := newUnresolved(b.plan)
			pc.Unresolved, unknown = u.name, u.addresses
		}
	}
	resolver := &dns.Interceptor{
		Resolvers: cfg.spec.Net.Nameservers, Pins: pins, Network: network,
		Static: b.plan.names, Unknown: unknown, OnlyAllowed: cfg.spec.Net.OnlyAllowed, Mentioned: bound,
		Audit: func(e audit.Event) { cfg.log.Append(e) },
	}
	if pc.Egress == nil {
		resolver.Lacks = dns.Lacks
	}
	pc.DNS = resolver
	px, err := proxy.New(pc)
	if err != nil {
		return nil, err
	}
	b.proxy = px
	if cfg.forward != nil {
		b.password = rand.Text()
		b.serveForward(cfg.forward, px, resolver, func() { limited("clients of the proxy: the next waits") })
		return b, nil
	}
	b.relay = relay.New(relay.Config{
		Network: network, Conns: &b.conns, Pins: pins, Secret: bound, Host: b.plan.host,
		Audit: func(e audit.Event) { cfg.log.Append(e) },
	})
	b.stack, err = netstack.New(netstack.Config{
		Link:   cfg.link,
		Guest4: b.plan.guest4, Gateway4: b.plan.gateway4,
		Guest6: b.plan.guest6, Gateway6: b.plan.gateway6,
		DNS: resolver,

		FromGuest: netstack.Rate(cfg.spec.Net.Rates.FromGuest), ToGuest: netstack.Rate(cfg.spec.Net.Rates.ToGuest),
		Limited: func(l netstack.Limit) { limited(string(l)) },
		UDP: func(_ context.Context, r *netstack.UDPRequest) {
			b.relay.Datagram(relay.Datagram{Src: r.Src, Dst: r.Dst, Payload: r.Take(), Reply: r.Reply, Refuse: r.Refuse})
		},
		Echo: func(_ context.Context, r *netstack.EchoRequest) {
			b.relay.Ping(relay.Ping{Src: r.Src, Dst: r.Dst, ID: r.ID, Seq: r.Seq, Payload: r.Payload, Reply: r.Reply, Refuse: r.Refuse})
		},
		TCP: func(ctx context.Context, r *netstack.TCPRequest) {
			px.ServeTCP(ctx, proxy.Flow{Src: r.Src, Dst: r.Dst, Accept: r.Accept, Refuse: r.Refuse})
		},
	})
	return b, err
}

func (b *boundary) close() {
	if b.stack != nil {
		b.stack.Close()
	}
	if b.relay != nil {
		b.relay.Close()
	}
	if b.endForward != nil {
		b.endForward()
	}
}

// roots are the certificates that upstreams are verified against.
type roots struct {
	any *x509.CertPool // the host's and those given for every host
	by  []rootsFor
}

type rootsFor struct {
	pattern hostname.Pattern
	pool    *x509.CertPool
}

func newRoots(cas []UpstreamCA) (*roots, error) {
	r := &roots{}
	var err error
	if r.any, err = x509.SystemCertPool(); err != nil {
		return nil, fmt.Errorf("read the host's roots: %w", err)
	}
	for _, c := range cas {
		if c.For == nil && !r.any.AppendCertsFromPEM(c.PEM) {
			return nil, fmt.Errorf("an upstream CA bundle holds no certificate")
		}
	}
	for _, c := range cas {
		if c.For == nil {
			continue
		}
		pool := r.any.Clone()
		if !pool.AppendCertsFromPEM(c.PEM) {
			return nil, fmt.Errorf("the upstream CA bundle for %s holds no certificate", c.For)
		}
		r.by = append(r.by, rootsFor{*c.For, pool})
	}
	return r, nil
}

// of returns the pool for name, nil where it is that of any host. The first
// pattern that matches wins.
func (r *roots) of(name hostname.Name) *x509.CertPool {
	for _, f := range r.by {
		if f.pattern.Match(name) {
			return f.pool
		}
	}
	return nil
}
