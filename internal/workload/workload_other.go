//go:build !linux

package workload

import (
	"context"
	"os"
)

// Main does nothing: there are no namespaces.
func Main() {}

// A Workload does not exist on this system.
type Workload struct{}

// New fails.
func New(context.Context, Options) (*Workload, error) { return nil, ErrUnsupported }

// Tap returns nothing.
func (*Workload) Tap() *os.File { return nil }

// Start fails.
func (*Workload) Start(context.Context, Config) (*os.File, error) { return nil, ErrUnsupported }

// Signal fails.
func (*Workload) Signal(string) error { return ErrUnsupported }

// Wait fails.
func (*Workload) Wait(context.Context) (Exit, error) { return Exit{}, ErrUnsupported }

// Kill does nothing.
func (*Workload) Kill() {}

// Trust returns nothing.
func Trust() []string { return nil }
