package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A relay passes the signals that the caller gets on to the guest's command.
// Before there is one, and when the command ignores being asked again and
// again, it ends the sandbox instead.
type relay struct {
	cancel context.CancelCauseFunc
	ctx    context.Context
	ch     chan os.Signal

	mu   sync.Mutex
	proc signaller
	asks int // signals that ask the command to end
}

// A signaller is a command that can be sent signals, by name.
type signaller interface{ Signal(name string) error }

// patienceWithGuest is how many times a command may be asked to end before
// the sandbox is ended.
const patienceWithGuest = 3

// newRelay starts to catch signals. The context ends with the sandbox.
func newRelay(ctx context.Context) (*relay, context.Context) {
	r := &relay{ch: make(chan os.Signal, 16)}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	signal.Notify(r.ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	// In the background, reading the terminal must fail, not stop us.
	signal.Ignore(syscall.SIGTTIN)
	go func() {
		for sig := range r.ch {
			r.handle(sig.(syscall.Signal))
		}
	}()
	return r, r.ctx
}

func (r *relay) stop() {
	signal.Stop(r.ch)
	close(r.ch)
	r.cancel(nil)
}

// to names the command that gets the signals from now on.
func (r *relay) to(p signaller) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.proc = p
}

// end ends the sandbox for the reason err.
func (r *relay) end(err error) { r.cancel(err) }

func (r *relay) handle(sig syscall.Signal) {
	asking := sig != syscall.SIGUSR1 && sig != syscall.SIGUSR2
	r.mu.Lock()
	defer r.mu.Unlock()
	if asking {
		r.asks++
	}
	passed := r.proc != nil && (!asking || r.asks < patienceWithGuest) && r.proc.Signal(signalName(sig)) == nil
	if asking && !passed {
		r.cancel(&exitError{128 + int(sig), nil})
	}
}

// signalName is the name that the guest's agent knows: INT, TERM.
func signalName(sig syscall.Signal) string {
	name := unix.SignalName(sig)
	if len(name) > 3 {
		return name[3:]
	}
	return fmt.Sprint(int(sig))
}

// cause returns why the relay ended the sandbox, if it did, else err.
func (r *relay) cause(err error) error {
	if cause := context.Cause(r.ctx); err != nil && cause != nil && r.ctx.Err() != nil {
		return cause
	}
	return err
}
