package term

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

// IsTerminal reports whether f is a terminal.
func IsTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// A Size is a terminal's in characters.
type Size struct{ Rows, Cols uint16 }

// DefaultSize is that of a TTY whose terminal does not tell.
var DefaultSize = Size{Rows: 24, Cols: 80}

// SizeOf returns the size of the terminal f, or DefaultSize.
func SizeOf(f *os.File) Size {
	cols, rows, err := term.GetSize(int(f.Fd()))
	if err != nil || cols <= 0 || rows <= 0 || cols > 0xffff || rows > 0xffff {
		return DefaultSize
	}
	return Size{Rows: uint16(rows), Cols: uint16(cols)}
}

// WatchSize calls changed with each new size of the terminal f until ctx
// ends.
func WatchSize(ctx context.Context, f *os.File, changed func(Size)) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGWINCH)
	go func() {
		defer signal.Stop(ch)
		for {
			select {
			case <-ctx.Done():
				return
			case <-ch:
				changed(SizeOf(f))
			}
		}
	}()
}

// Raw puts the terminal f into raw mode: every key goes to the guest. The
// returned function puts it back; calling it again does nothing.
func (o *Output) Raw(f *os.File) (restore func(), err error) {
	old, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, fmt.Errorf("set terminal to raw mode: %w", err)
	}
	o.SetRaw(true)
	return func() {
		if old == nil {
			return
		}
		term.Restore(int(f.Fd()), old) // fails only if the terminal is gone
		old = nil
		o.SetRaw(false)
	}, nil
}
