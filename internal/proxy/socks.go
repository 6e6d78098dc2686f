package proxy

import (
	"errors"
	"io"
	"net"
	"net/netip"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/hello"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/splice"
)

// A socksGuest is the guest's side of a flow that is not opened. If the guest
// speaks to a SOCKS proxy of its own, whom it asks for is told; what goes on
// behind that nobody here can judge, so it passes as it is.
type socksGuest struct {
	net.Conn
	said []byte // so far
	tell func(host string)
	over bool
}

// Read is not called by two goroutines at once.
func (g *socksGuest) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if g.over {
		return n, err
	}
	g.said = append(g.said, p[:min(n, hello.MaxSOCKS-len(g.said))]...)
	host, e := hello.SOCKSTarget(g.said)
	if e == nil {
		g.tell(host)
	}
	if !errors.Is(e, io.ErrUnexpectedEOF) || len(g.said) == hello.MaxSOCKS {
		g.over, g.said = true, nil
	}
	return n, err
}

// CloseWrite ends the sending side.
func (g *socksGuest) CloseWrite() error { splice.CloseWrite(g.Conn); return nil }

// NetConn is the connection itself.
func (g *socksGuest) NetConn() net.Conn { return g.Conn }

// tunnelled records that the guest reaches a secret's host through a proxy of
// its own: a placeholder in there stays one, and people ask why.
func (f *flow) tunnelled(host string) {
	names := []hostname.Name{}
	if a, err := netip.ParseAddr(host); err == nil {
		names = f.cfg.Pins.Names(a.Unmap())
	} else if n, err := hostname.Parse(host); err == nil {
		names = append(names, n)
	}
	for _, n := range names {
		if f.set.HasHost(n) {
			f.audit(audit.Event{Event: audit.Spliced, Reason: policy.Tunnelled, Host: string(n), Dst: f.dst.String(), Detail: "over SOCKS"})
		}
	}
}
