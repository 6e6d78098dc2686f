package main

import (
	"context"
	"errors"
	"syscall"
	"testing"
)

// deaf is a command whose keeper is gone.
type deaf struct{}

func (deaf) Signal(string) error { return errors.New("broken pipe") }

// TestSignalIsLost: what cannot be passed on ends the sandbox if it asks for
// its end, and otherwise says nothing about it: the keeper's own end does.
func TestSignalIsLost(t *testing.T) {
	for sig, status := range map[syscall.Signal]int{syscall.SIGUSR1: 0, syscall.SIGUSR2: 0, syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		r, ctx := newRelay(context.Background())
		r.to(deaf{})
		r.handle(sig)
		got := 0
		if e, ok := errors.AsType[*exitError](context.Cause(ctx)); ok {
			got = e.code
		}
		if got != status {
			t.Errorf("%v: exit status %d, want %d", sig, got, status)
		}
		r.stop()
	}
}
