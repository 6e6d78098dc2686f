package workload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/memfile"
)

// A Workload is a set of namespaces and the command in them. Its methods are
// for one goroutine, but for Signal and Kill.
type Workload struct {
	channel *channel
	cmd     *exec.Cmd
	tap     *os.File
	ended   chan struct{}
}

// New makes the namespaces and the interface. They end with ctx.
func New(ctx context.Context, o Options) (*Workload, error) {
	if o.UID <= 0 || o.GID < 0 {
		return nil, errors.New("start command: it must not be root's")
	}
	ch, theirs, err := newChannel()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	w := &Workload{channel: ch, ended: make(chan struct{})}
	w.cmd = &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{launcherName, fmt.Sprint(o.UID), fmt.Sprint(o.GID)},
		Env: []string{}, // the caller's holds values
		Dir: "/", Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, ExtraFiles: []*os.File{theirs},
		// A ^C at the terminal is the caller's to handle.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	}
	started := make(chan error, 1)
	// The death signal is tied to the thread that forked, so this thread
	// lives exactly as long as the namespaces.
	go func() {
		runtime.LockOSThread()
		defer close(w.ended)
		err := w.cmd.Start()
		started <- err
		if err == nil {
			w.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start launcher: %w", err)
	}
	theirs.Close() // or its end would never be seen
	m, f, err := w.await(ctx)
	if err != nil {
		w.Kill()
		return nil, err
	}
	if !m.Tap || f == nil {
		w.Kill()
		return nil, errors.New("start command: the launcher said something else")
	}
	w.tap = f
	return w, nil
}

// await returns the next message, or why there is none.
func (w *Workload) await(ctx context.Context) (message, *os.File, error) {
	stop := context.AfterFunc(ctx, func() { w.channel.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	m, f, err := w.channel.receive()
	switch {
	case ctx.Err() != nil:
		return m, nil, context.Cause(ctx)
	case err != nil:
		return m, nil, ErrGone
	case m.Failed != nil:
		return m, nil, m.Failed
	}
	return m, f, nil
}

// Tap is the other end of the workload's interface. The caller hands it on
// and closes it.
func (w *Workload) Tap() *os.File { return w.tap }

// Start runs the command. It returns the controlling side of its terminal, if
// it is to have one. An *Exit tells of a command that cannot be executed.
func (w *Workload) Start(ctx context.Context, c Config) (tty *os.File, err error) {
	f, err := memfile.New(c)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := w.channel.send(message{Config: true}, f); err != nil {
		return nil, ErrGone
	}
	m, tty, err := w.await(ctx)
	switch {
	case err != nil:
		return nil, err
	case m.Exit != nil:
		return nil, m.Exit
	}
	return tty, nil
}

// Signal sends a signal to the command and its process group, by name: INT,
// TERM, KILL.
func (w *Workload) Signal(name string) error {
	sig := unix.SignalNum("SIG" + name)
	if sig == 0 {
		return fmt.Errorf("there is no signal %s", name)
	}
	return w.channel.send(message{Signal: int(sig)}, nil)
}

// Wait returns how the command ended; whatever else ran in the namespaces
// has then ended too.
func (w *Workload) Wait(ctx context.Context) (Exit, error) {
	m, _, err := w.await(ctx)
	w.Kill()
	switch {
	case err != nil:
		return Exit{}, err
	case m.Exit == nil:
		return Exit{}, ErrGone
	}
	return *m.Exit, nil
}

// Kill ends everything in the namespaces and waits until it has ended.
func (w *Workload) Kill() {
	w.channel.conn.Close() // init reads the end
	select {
	case <-w.ended:
	case <-time.After(endTimeout):
		w.cmd.Process.Kill()
		<-w.ended
	}
}
