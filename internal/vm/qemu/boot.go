package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/cutoutdev/cutout/internal/vm"
)

// Boot starts a machine and waits for its agent. connect is given the agent's
// port and returns once the agent has said hello, or when its context ends,
// which happens at the boot's time limit and when the machine dies; it is
// called again, with a new connection, for the one retry.
//
// A boot that fails in a way that a second may not (a reset before the hello,
// silence, an early end) is tried once more: after KVM in emulation, since a
// /dev/kvm can exist and not work, and with the console on. An error of
// connect before the limit is final.
func Boot(ctx context.Context, s vm.Spec, connect func(ctx context.Context, control net.Conn) error) (*Machine, error) {
	agent := func(ctx context.Context, m *Machine) error { return connect(ctx, m.Control()) }
	m, first := boot(ctx, s, nil, agent)
	if first == nil || ctx.Err() != nil || !again(first) {
		return m, first
	}
	retry := s
	retry.Verbose = true
	if s.Accel != vm.TCG {
		retry.Accel = vm.TCG
		if s.BootTimeout != 0 {
			retry.BootTimeout = max(s.BootTimeout, vm.DefaultBootTimeout)
		}
		notice(s, fmt.Sprintf("the machine did not start with %s (%v); trying software emulation, which is about 20 times slower", s.Accel, first))
	} else {
		notice(s, fmt.Sprintf("the machine did not start (%v); trying once more", first))
	}
	m, second := boot(ctx, retry, nil, agent)
	if second != nil {
		return nil, fmt.Errorf("start the machine, twice: %w", second)
	}
	return m, nil
}

func notice(s vm.Spec, text string) {
	if s.Notice != nil {
		s.Notice(text)
	}
}

// again says whether a failed boot is worth a second try.
func again(err error) bool {
	var e *ExitError
	if !errors.As(err, &e) {
		return false
	}
	return !errors.Is(err, ErrNoMemory) && !errors.Is(err, ErrKernel) && !errors.Is(err, ErrKilled)
}

// boot starts a machine, from the state that can be read from state if it is
// not nil, and waits for its agent.
func boot(ctx context.Context, s vm.Spec, state *os.File, connect func(context.Context, *Machine) error) (*Machine, error) {
	limit := s.BootTimeout
	if limit == 0 {
		limit = vm.DefaultBootTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, ErrBootTimeout)
	defer cancel()
	m, err := start(ctx, s, state)
	if err != nil {
		return nil, err
	}
	hello := make(chan error, 1)
	go func() { hello <- connect(ctx, m) }()
	select {
	case err = <-hello:
		if err == nil {
			return m, nil
		}
	case <-m.Done():
	case <-ctx.Done():
	}
	return nil, m.failed(ctx, err, cancel, hello)
}

// dying is how long a machine takes at most from closing its channels to its
// end, so that a connection that breaks is not mistaken for the cause.
const dying = 2 * time.Second

// failed ends a machine whose agent has not answered and says why: the
// machine's own end explains more than what connect saw of it.
func (m *Machine) failed(ctx context.Context, cause error, cancel func(), hello <-chan error) error {
	timeout := errors.Is(context.Cause(ctx), ErrBootTimeout)
	var dead error
	select {
	case <-m.Done():
		if dead = m.Wait(); dead == nil {
			dead = &ExitError{State: "powered off", Console: m.Console()}
		}
	case <-ctx.Done():
	case <-time.After(dying):
	}
	cancel()
	m.Kill()
	if cause == nil {
		<-hello
	}
	switch {
	case dead != nil:
		return dead
	case timeout:
		return &ExitError{Reason: ErrBootTimeout, State: "killed", Console: m.Console()}
	case cause != nil:
		return fmt.Errorf("connect to the agent: %w", cause)
	}
	return context.Cause(ctx)
}
