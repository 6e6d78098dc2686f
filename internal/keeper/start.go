package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Arg0 is the name under which a keeper is re-executed; see [Main].
const Arg0 = "cutout-keeper"

// RuntimeSettings are all of a keeper's environment. The Go runtime overwrites
// memory that it frees, the last place in which a copy of a value could outlive
// its request, and interrupts no goroutine by a signal: the kernel would save
// the registers through which a value or an answer is just being copied in a
// frame that stays.
const RuntimeSettings = "GODEBUG=clobberfree=1,asyncpreemptoff=1"

// A Sandbox is a running sandbox, held by the process that started it: it
// ends when that process does.
type Sandbox struct {
	*Client
	conn net.Conn // closing it ends the sandbox
	cmd  *exec.Cmd
	log  string // path of what the keeper says when it crashes

	done  chan struct{} // the keeper has exited
	ended string        // why, once done is closed
	audit *LogEnd       // once done is closed; nil if it was killed
}

// Files are what a keeper inherits; the caller closes them.
type Files struct {
	Values  *os.File // where it reads the values of its secrets; nil = there are none
	Link    *os.File // what the workload is plugged into; nil = there is a machine
	Metrics *os.File // a socket at which metrics are asked for; nil = none
}

// Start starts a keeper for spec and waits until the guest takes commands, or
// the boundary is there for the workload at the other end of the link. Progress
// and notices are told to tell, which may be nil. A *Failure is the keeper's own
// word.
func Start(ctx context.Context, spec Spec, files Files, tell func(Message)) (*Sandbox, error) {
	conn, theirs, err := socketPair("handover")
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	logPath := filepath.Join(spec.Dirs.State, LogName)
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start keeper: %w", err)
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start keeper: %w", err)
	}
	cmd := &exec.Cmd{
		Path:       self,
		Args:       []string{Arg0},
		Env:        []string{RuntimeSettings}, // nothing of the caller's
		Dir:        "/",
		Stderr:     log,                                                         // a crash report; it prints no memory
		ExtraFiles: []*os.File{theirs, files.Values, files.Link, files.Metrics}, // nil leaves a number free
		// A ^C at the terminal is the client's to handle.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("start keeper: %w", err)
	}
	theirs.Close() // or the keeper's end would never be seen
	s := &Sandbox{Client: Dial(spec.Dirs.Runtime), conn: conn, cmd: cmd, log: logPath, done: make(chan struct{})}
	if err := s.handOver(ctx, spec, tell); err != nil {
		s.End()
		if errors.Is(err, errCrashed) {
			err = &CrashError{Log: logPath, Words: lastWords(logPath)}
		}
		return nil, err
	}
	return s, nil
}

func (s *Sandbox) handOver(ctx context.Context, spec Spec, tell func(Message)) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	started := make(chan error, 1)
	var once sync.Once
	answer := func(err error) { once.Do(func() { started <- err }) }
	go func() {
		err := readMessages(s.conn, func(m Message) {
			switch {
			case m.Failed != nil:
				answer(m.Failed)
			case m.Ready:
				answer(nil)
			case m.Ended != "":
				s.ended = m.Ended
			case m.Log != nil:
				s.audit = m.Log
			case tell != nil:
				tell(m)
			}
		})
		if s.cmd.Wait() != nil && s.ended == "" {
			if words := lastWords(s.log); words != "" {
				s.ended = "the keeper crashed: " + words
			}
		}
		answer(errors.Join(errCrashed, err))
		close(s.done)
	}()
	if err := sendSpec(s.conn, spec); err != nil {
		select { // the keeper's own reason is the better one
		case kerr := <-started:
			return kerr
		case <-time.After(time.Second):
			return fmt.Errorf("hand over to keeper: %w", err)
		}
	}
	select {
	case err := <-started:
		return err
	case <-ctx.Done():
		return fmt.Errorf("start sandbox: %w", ctx.Err())
	}
}

// endTimeout is how long a keeper may take to end its machine; QEMU dies
// with it in any case.
const endTimeout = 5 * time.Second

// End ends the sandbox and waits until nothing of it is left running. It
// returns the keeper's reason if the sandbox had ended by itself.
func (s *Sandbox) End() string {
	s.Client.Close()
	if c, ok := s.conn.(*net.UnixConn); ok {
		c.CloseWrite() // the keeper reads the end and still can say why
	}
	select {
	case <-s.done:
	case <-time.After(endTimeout):
		s.cmd.Process.Kill()
		<-s.done
	}
	s.conn.Close()
	return s.ended
}

// LogEnd returns where the audit log ended, nil if nobody knows. It is called
// after End.
func (s *Sandbox) LogEnd() *LogEnd { return s.audit }

// Done is closed when the keeper has exited.
func (s *Sandbox) Done() <-chan struct{} { return s.done }

// PID returns the keeper's process id.
func (s *Sandbox) PID() int { return s.cmd.Process.Pid }
