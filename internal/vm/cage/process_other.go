//go:build !linux

package cage

import "os"

// A Process is a program in its cage.
type Process struct{}

// Start is not available on this system.
func Start(Config) (*Process, error) { return nil, ErrUnsupported }

// Report is not available on this system.
func Report() (Layers, error) { return Layers{}, ErrUnsupported }

// Main does nothing: there is nothing to take over on this system.
func Main() {}

func (*Process) Pid() int                        { return 0 }
func (*Process) Layers() Layers                  { return Layers{} }
func (*Process) Kill() error                     { return ErrUnsupported }
func (*Process) Wait() (*os.ProcessState, error) { return nil, ErrUnsupported }
