package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/conntrack"
	"github.com/cutoutdev/cutout/internal/hello"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/splice"
)

const (
	// maxFlows is how many flows a sandbox may have at once: at the 64 KB
	// that an idle one costs they fill two thirds of its 192 MiB of buffers.
	maxFlows = 2048
	// maxRequests is how many requests a sandbox may have in progress. HTTP/1
	// cannot have more; HTTP/2 could have a hundred times as many, each with
	// a head of up to 64 KiB and four goroutines.
	maxRequests = maxFlows
	// silence is how long the first word of a guest is waited for before an
	// unpinned address is dialled: clients that speak first do so within a
	// round trip of their own machine, clients that do not wait for a server.
	silence = 300 * time.Millisecond
	// dialLimit is what Linux needs for three lost SYNs (1+2+4 s) and a
	// distant server.
	dialLimit = 15 * time.Second
)

// A flow is one TCP connection of the guest.
type flow struct {
	*Proxy
	ctx   context.Context
	dst   netip.AddrPort // that the guest dialled
	to    netip.AddrPort // that is dialled for it
	asked hostname.Name  // [Flow.Name]
	named hostname.Name  // asked, or whose --connect-to address dst is, or ""
	rule  string         // of the network, that decided last; "" for connect-to
	way   way            // how the upstream is reached
	blank bool           // dst stands for named, which nobody here could resolve
	set   *secret.Set    // when the flow began
	guest net.Conn       // nil until accepted

	entry *conntrack.Conn
}

// ServeTCP handles f until it ends or ctx is done. It calls exactly one of
// f.Accept and f.Refuse.
func (p *Proxy) ServeTCP(ctx context.Context, f Flow) {
	defer p.flows.Add(-1)
	n := p.flows.Add(1)
	fl := &flow{Proxy: p, ctx: ctx, dst: unmap(f.Dst), asked: f.Name, named: f.Name, set: p.cfg.Secrets()}
	reason := fl.route()
	if n > maxFlows {
		reason = policy.LimitReached
	}
	private := reason == policy.ProtocolDenied && fl.answersDNS()
	if reason != policy.None && !private {
		f.Refuse()
		fl.denied(reason, fl.named, "")
		return
	}

	fl.way = fl.wayFor(hello.Hello{})
	fl.entry = p.cfg.Conns.Add(conntrack.Flow{
		Direction: policy.Egress, Protocol: policy.TCP, Src: f.Src, Dst: fl.dst,
		Name: string(fl.name()), Rule: fl.rule, State: conntrack.Opening,
	})
	defer fl.entry.Close()
	if private {
		fl.serveDNS(f)
		return
	}

	// Upstream first, so that the guest's SYN meets the same fate as it
	// would without us. Not where TLS may turn out to ask for a secret's
	// host at an address that was not resolved for it: nobody dials that.
	var up net.Conn
	if fl.dialsFirst() {
		var err error
		if up, err = fl.dial(); err != nil {
			f.Refuse()
			fl.failed(err)
			return
		}
		defer up.Close()
	}
	guest, err := f.Accept()
	if err != nil {
		return
	}
	defer guest.Close()
	fl.guest = fl.entry.Wrap(guest)
	fl.entry.Becomes(conntrack.Open)
	defer context.AfterFunc(ctx, func() { splice.Reset(guest) })()
	fl.serve(up)
}

// serve looks at who speaks first and what, and hands the connection on. up
// is nil if nothing was dialled yet.
func (f *flow) serve(up net.Conn) {
	first, up, err := f.listen(up)
	switch failure := (*upstreamError)(nil); {
	case errors.As(err, &failure):
		splice.Reset(f.guest)
		f.failed(failure.error)
		return
	case err != nil:
		f.abort(policy.MalformedRequest, "", "no whole ClientHello")
		return
	}
	if up != nil {
		defer up.Close()
	}
	if reason := f.spoken(first); reason != policy.None {
		f.abort(reason, first.Name, "")
		return
	}
	f.entry.Passed(string(first.Name), f.rule)
	up = f.redirect(first, up)
	switch first.Kind {
	case hello.TLS:
		f.serveTLS(first, up)
	case hello.HTTP:
		f.servePlain(first, up)
	default:
		f.guest = &socksGuest{Conn: f.guest, tell: f.tunnelled}
		f.splice(up)
	}
}

// An upstreamError is one of dial, among others.
type upstreamError struct{ error }

// listen waits for the first word of either side and looks at what the guest
// says. It dials if the guest says nothing. Nothing is consumed.
func (f *flow) listen(up net.Conn) (hello.Hello, net.Conn, error) {
	if up == nil {
		guest, first, err := hello.Peek(f.ctx, f.guest, hello.Config{Silence: silence})
		f.guest = guest
		if err != nil || first.Kind != hello.Silent {
			return first, nil, err
		}
		if up, err = f.dial(); err != nil {
			return first, nil, &upstreamError{err}
		}
	}
	ctx, spoken := context.WithCancel(f.ctx)
	defer spoken()
	server := &replay{Conn: up}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		n, err := up.Read(buf)
		if server.head = buf[:n]; !timedOut(err) {
			server.err = err
			spoken()
		}
	}()
	guest, first, err := hello.Peek(ctx, f.guest, hello.Config{})
	f.guest = guest
	up.SetReadDeadline(past)
	<-done
	up.SetReadDeadline(time.Time{})
	if server.head == nil && server.err == nil {
		return first, up, err
	}
	return first, server, err
}

// route is what is decided on addresses alone.
func (f *flow) route() policy.Reason {
	to, name, ok := f.cfg.ConnectTo(f.dst)
	if ok && f.asked != "" && name != f.asked {
		return policy.NotPinned
	}
	if ok {
		f.to, f.named = to, name
		return policy.None
	}
	f.to = f.dst
	if f.cfg.Unresolved != nil {
		if name, ok := f.cfg.Unresolved(f.dst.Addr()); ok {
			if f.asked != "" && name != f.asked {
				return policy.NotPinned
			}
			f.named, f.blank = name, true
			return f.judge(policy.Query{})
		}
	}
	if f.cfg.Host != nil {
		if to, ok := f.cfg.Host(f.dst); ok {
			f.to, f.named = to, policy.HostName
		}
	}
	return f.judge(policy.Query{})
}

// spoken is what is decided once the guest has said whom it wants: a rule
// about a name holds only for that name's own connections, since others may
// live at its address.
func (f *flow) spoken(h hello.Hello) policy.Reason {
	// A secret's host is told, when the flow turns out to have no pin for it.
	if f.asked != "" && h.Kind == hello.TLS && h.Name != "" && h.Name != f.asked && !f.set.HasHost(h.Name) {
		return policy.AuthorityMismatch
	}
	if f.rule == "" || !f.cfg.Network.ByName() {
		return policy.None
	}
	q := policy.Query{Spoken: true}
	if h.Kind == hello.TLS {
		q.ServerName = h.Name
	}
	return f.judge(q)
}

// judge asks the network about the flow.
func (f *flow) judge(q policy.Query) policy.Reason {
	q.Direction, q.Protocol = policy.Egress, policy.TCP
	q.Addr, q.Port, q.Unresolved = f.to.Addr(), f.to.Port(), f.blank
	q.Names = f.cfg.Pins.Names(f.dst.Addr())
	if f.named != "" {
		q.Names = append(q.Names, f.named)
	}
	v := f.cfg.Network.Decide(q)
	f.rule = v.Rule
	return v.Reason
}

// pinned is gate 2 for a new connection to name.
func (f *flow) pinned(name hostname.Name) bool {
	if name == "" {
		return false
	}
	return name == f.named || f.cfg.Pins.Pinned(name, f.dst.Addr())
}

// pinnedForSecret reports whether the address was resolved for a host of
// some secret.
func (f *flow) pinnedForSecret() bool {
	if f.set.HasHost(f.named) {
		return true
	}
	for _, name := range f.cfg.Pins.Names(f.dst.Addr()) {
		if f.set.HasHost(name) {
			return true
		}
	}
	return false
}

// name is whom the guest means, as far as its address tells.
func (f *flow) name() hostname.Name {
	if names := f.cfg.Pins.Names(f.dst.Addr()); f.named == "" && len(names) > 0 {
		return names[0]
	}
	return f.named
}

// splice relays the flow unopened, dialling first if need be.
func (f *flow) splice(up net.Conn) {
	if up == nil {
		var err error
		if up, err = f.dial(); err != nil {
			splice.Reset(f.guest)
			f.failed(err)
			return
		}
	}
	f.entry.Becomes(conntrack.Spliced)
	defer context.AfterFunc(f.ctx, func() { splice.Reset(up) })()
	splice.Join(f.guest, up)
}

// abort ends an accepted connection with a RST.
func (f *flow) abort(reason policy.Reason, host hostname.Name, detail string) {
	splice.Reset(f.guest)
	f.denied(reason, host, detail)
}

func (f *flow) denied(reason policy.Reason, host hostname.Name, detail string) {
	f.audit(audit.Event{Event: audit.Denied, Reason: reason, Host: string(host), Dst: f.dst.String(), Rule: f.rule, Detail: detail})
}

// audit records an event on which nothing depends. A log that fails stops
// substitution, which asks for the result of its own event.
func (f *flow) audit(e audit.Event) { f.cfg.Audit.Append(e) }

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
