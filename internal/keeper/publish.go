package keeper

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/ingress"
)

// publish lets peers in, now that the guest is there to answer, and says
// which ports were chosen.
func (s *sandbox) publish() {
	ports := s.ingress.Ports()
	if len(ports) == 0 {
		return
	}
	b := s.boundary
	s.ingress.Serve(ingress.Config{
		Network: b.network, Conns: &b.conns,
		Audit:   func(e audit.Event) { s.log.Append(e) },
		Guest:   []netip.Addr{b.plan.guest4.Addr(), b.plan.guest6.Addr()},
		DialTCP: b.stack.DialTCP, DialUDP: b.stack.DialUDP,
	})
	for i, p := range ports {
		s.record("published", p.String())
		if s.spec.Net.Published[i].Listen.Port() == 0 {
			s.tell.notice("published " + p.String())
		}
	}
}

// publishHint is what to do about a port that cannot be had.
func publishHint(err error) string {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return "end what uses the port, or write -p 0:GUEST for any free one"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return "give an address of this machine, or leave it out for 127.0.0.1"
	case errors.Is(err, unix.EACCES):
		return "ports under 1024 are root's: take one above, such as -p 8080:80"
	}
	return ""
}
