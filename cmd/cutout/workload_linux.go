package main

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/tap"
	"github.com/cutoutdev/cutout/internal/term"
)

func setTerminalSize(tty *os.File, s term.Size) {
	unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Cols})
}

// A tapPlug is an interface in a network namespace of somebody else's.
type tapPlug struct {
	options boundaryOptions
	device  *os.File
}

func newTapPlug(o boundaryOptions) (plug, error) {
	p := &tapPlug{options: o}
	err := p.in(func() (err error) {
		p.device, err = tap.Create(o.Tap)
		return err
	})
	if err != nil {
		return nil, term.WithHint(err, "making interfaces is for root, or for the owner of the namespace")
	}
	return p, nil
}

// in calls f in the workload's network namespace.
func (p *tapPlug) in(f func() error) error {
	if p.options.Netns == "" {
		return f()
	}
	return tap.In(p.options.Netns, f)
}

func (p *tapPlug) link() (*os.File, keeper.LinkKind) { return p.device, keeper.LinkTap }

func (p *tapPlug) prepare(about keeper.Workload) error {
	mac, addrs, err := addresses(about, p.options.Netns != "")
	if err != nil {
		return err
	}
	return p.in(func() error { return tap.Configure(p.options.Tap, mac, about.MTU, addrs) })
}

func (p *tapPlug) serve(ctx context.Context, _ *relay, _ keeper.Workload) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func (p *tapPlug) close() { p.device.Close() }
