package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/term"
)

// A unixPlug is a socket that a virtual machine's monitor connects to.
type unixPlug struct {
	path string
	file *os.File
}

func newUnixPlug(path string) (plug, error) {
	file, err := listenUnix("--unix", path)
	return &unixPlug{path: path, file: file}, err
}

// listenUnix makes a socket that is the caller's alone, for a keeper to
// inherit.
func listenUnix(flag, path string) (*os.File, error) {
	if err := removeStale(flag, path); err != nil {
		return nil, err
	}
	old := unix.Umask(0o177) // 0600 from the first moment
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", flag, err)
	}
	l.SetUnlinkOnClose(false)
	defer l.Close() // File duplicates it
	file, err := l.File()
	if err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("open %s: %w", flag, err)
	}
	return file, nil
}

// removeStale removes a socket of the caller's that nobody listens at: one of
// a boundary that was killed.
func removeStale(flag, path string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return nil // whatever is wrong, Listen says so
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	// Of another type, so that it cannot be plugged in where somebody listens.
	c, err := net.Dial("unixgram", path)
	if err == nil {
		c.Close()
	}
	if !ok || int(st.Uid) != os.Geteuid() || !errors.Is(err, unix.ECONNREFUSED) {
		return term.WithHint(fmt.Errorf("open %s: %s is in use", flag, path), "name another path")
	}
	return os.Remove(path)
}

func (p *unixPlug) link() (*os.File, keeper.LinkKind) { return p.file, keeper.LinkUnix }

func (p *unixPlug) prepare(keeper.Workload) error { return nil }

func (p *unixPlug) serve(ctx context.Context, _ *relay, _ keeper.Workload) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func (p *unixPlug) close() { os.Remove(p.path) }
