// Package term is how Cutout talks to people: messages and hints on
// standard error, a progress line for what takes longer than a second, and
// the terminal's raw mode and size for a guest's TTY.
//
// It promises that text which a guest, an image or a server chose reaches
// the terminal escaped, and that a terminal put into raw mode is put back.
package term

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// An Output writes messages and one progress line to a stream, usually
// standard error. Its methods may be called from several goroutines.
type Output struct {
	w   io.Writer
	tty bool
	now func() time.Time

	mu    sync.Mutex
	raw   bool      // the terminal does not turn \n into \r\n by itself
	shown bool      // a progress line stands on the terminal
	stage string    // the stage in progress; "" = none
	since time.Time // when the stage began
	last  time.Time // when it was last drawn
	told  bool      // not a TTY: the stage has its line
	timer *time.Timer
	quiet bool // no progress
}

// NewOutput returns an output that writes to f.
func NewOutput(f *os.File) *Output {
	return &Output{w: f, tty: term.IsTerminal(int(f.Fd())), now: time.Now}
}

// Quiet stops the progress line.
func (o *Output) Quiet() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clear()
	o.quiet = true
}

// SetRaw says whether the terminal is in raw mode, in which lines must end
// with a carriage return as well.
func (o *Output) SetRaw(raw bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.raw = raw
}

// Printf writes one message as whole lines, in place of a progress line.
// Arguments that somebody else chose must be escaped by the caller.
func (o *Output) Printf(format string, args ...any) {
	text := strings.TrimSuffix(fmt.Sprintf(format, args...), "\n") + "\n"
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clear()
	o.write(text)
}

func (o *Output) write(text string) {
	if o.raw {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	io.WriteString(o.w, text) // a lost message on standard error has nowhere to be told
}

// Progress is shown only for stages that last longer than patience, and on a
// terminal is redrawn no more often than redraw.
const (
	patience = time.Second
	redraw   = 100 * time.Millisecond
)

// Progress says how far the stage is; a new name begins a new stage, the
// empty name ends the last. Counts are bytes, total 0 means unknown. A
// terminal shows one line that is rewritten; anything else gets one line per
// stage. It has the signature of image.Progress.
func (o *Output) Progress(stage string, done, total int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.quiet {
		return
	}
	if stage != o.stage {
		o.clear()
		if o.timer != nil {
			o.timer.Stop()
		}
		o.stage, o.since, o.last, o.told = stage, o.now(), time.Time{}, false
		if stage != "" { // it may say nothing for long
			o.timer = time.AfterFunc(patience, func() { o.tick(stage) })
		}
	}
	o.draw(done, total)
}

// Stage begins a stage of unknown length, which the returned function ends.
func (o *Output) Stage(stage string) (done func()) {
	o.Progress(stage, 0, 0)
	return func() { o.Progress("", 0, 0) }
}

// tick shows a stage that has lasted and said nothing more.
func (o *Output) tick(stage string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if stage == o.stage && o.last.IsZero() {
		o.draw(0, 0)
	}
}

func (o *Output) draw(done, total int64) {
	now := o.now()
	if o.stage == "" || now.Sub(o.since) < patience || now.Sub(o.last) < redraw {
		return
	}
	o.last = now
	switch {
	case o.tty:
		io.WriteString(o.w, "\r\x1b[K"+Escape(o.stage)+amount(done, total))
		o.shown = true
	case !o.told:
		o.write("cutout: " + Escape(o.stage) + "\n")
		o.told = true
	}
}

// clear takes the progress line off the terminal.
func (o *Output) clear() {
	if o.shown {
		io.WriteString(o.w, "\r\x1b[K")
		o.shown = false
	}
}

func amount(done, total int64) string {
	switch {
	case done <= 0:
		return " …"
	case total <= 0:
		return "  " + Bytes(done)
	}
	return fmt.Sprintf("  %s of %s (%d %%)", Bytes(done), Bytes(total), min(100, done*100/total))
}

// Bytes writes a size for people: 512 B, 3.4 MB.
func Bytes(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, prefix := float64(n), -1
	for value >= unit && prefix < 4 {
		value /= unit
		prefix++
	}
	return fmt.Sprintf("%.1f %cB", value, "kMGTP"[prefix])
}
