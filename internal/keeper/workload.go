package keeper

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/secret"
)

// A Workload is what a workload that is no machine of ours must be told.
type Workload struct {
	Env []string `json:"env"` // the placeholders
	CA  []byte   `json:"ca"`  // PEM, of the authority that signs for the hosts of secrets

	Password string `json:"password,omitempty"` // of clients of a proxy, who have no interface

	MAC      string       `json:"mac"`
	MTU      int          `json:"mtu"`
	Guest4   netip.Prefix `json:"guest4"`
	Guest6   netip.Prefix `json:"guest6"`
	Gateway4 netip.Addr   `json:"gateway4"`
	Gateway6 netip.Addr   `json:"gateway6"`
}

// Roots are for workloads whose system has none, in PEM.
func Roots() []byte { return carriedRoots() }

// startLinked brings up a boundary for a workload that somebody else starts.
func (s *sandbox) startLinked(ctx context.Context, set *secret.Set) error {
	if err := s.plug(); err != nil {
		return err
	}
	s.events.add(func(e audit.Event) { s.tell.send(Message{Event: &e}) })
	if err := s.record("started", "boundary for "+string(s.spec.Link)); err != nil {
		return err
	}
	s.publish()
	if err := s.serve(ctx); err != nil {
		return err
	}
	p := s.boundary.plan
	s.tell.send(Message{Workload: &Workload{
		Env: placeholders(set), CA: s.boundary.ca.CertPEM(),
		MAC: netstack.DefaultGuestMAC.String(), MTU: netstack.DefaultMTU,
		Password: s.boundary.password,
		Guest4:   p.guest4, Gateway4: p.gateway4, Guest6: p.guest6, Gateway6: p.gateway6,
	}})
	return nil
}

// plug makes the boundary at the other end of what was inherited.
func (s *sandbox) plug() (err error) {
	if s.spec.Link == LinkListen {
		unix.CloseOnExec(linkFD)
		f := os.NewFile(linkFD, "listener")
		defer f.Close() // FileListener duplicates it
		c := s.boundaryConfig(nil)
		if c.forward, err = net.FileListener(f); err != nil {
			return fmt.Errorf("open link: %w", err)
		}
		s.boundary, err = newBoundary(c)
		return err
	}
	link, err := openLink(s.spec.Link, linkFD)
	if err != nil {
		return err
	}
	if s.boundary, err = newBoundary(s.boundaryConfig(link)); err != nil {
		return err
	}
	go func() {
		<-s.boundary.stack.Done()
		s.end(errUnplugged)
	}()
	return nil
}

// placeholders lists the variables that hold them.
func placeholders(set *secret.Set) []string {
	var env []string
	for _, x := range set.All() {
		if x.State == secret.Removed {
			continue
		}
		env = append(env, fmt.Sprintf("%s=%s", x.Name, x.Placeholder))
	}
	return env
}
