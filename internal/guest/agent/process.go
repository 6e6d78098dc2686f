package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/cutoutdev/cutout/internal/guest/wire"
	"golang.org/x/sys/unix"
)

// A process is one command.
type process struct {
	session *session
	call    uint32
	stdin   *wire.Inbound
	outputs []*wire.Outbound // stdout, and stderr unless there is a terminal

	mu      sync.Mutex
	pid     int      // 0: not started yet
	pending []int    // signals that came before
	tty     *os.File // nil: none
	rows    uint16
	cols    uint16
}

// start opens the call's channels at once, since data may follow in the next
// frame, and does the rest beside.
func (s *session) start(m wire.Message) error {
	var r wire.StartRequest
	if err := m.Decode(&r); err != nil {
		return err
	}
	names := []uint8{wire.Stdout, wire.Stderr}
	if r.TTY {
		names = names[:1]
	}
	ins, outs, err := s.link.Open(m.Call, []uint8{wire.Stdin}, names)
	if err != nil {
		return err
	}
	p := &process{session: s, call: m.Call, stdin: ins[0], outputs: outs, rows: r.Rows, cols: r.Cols}
	s.mu.Lock()
	s.running[m.Call] = p
	s.mu.Unlock()
	s.begin(m.Call, func() error { return p.run(r) }, func(err error) {
		p.stdin.Close()
		for _, out := range p.outputs {
			out.Close()
		}
		p.exit(failure(err))
	})
	return nil
}

// run starts the command and returns when it and its output have ended.
func (p *process) run(r wire.StartRequest) error {
	cmd, err := resolve(r, p.session.system.environ())
	if err != nil {
		return err
	}
	stdio, err := p.open(r.TTY, cmd.user)
	if err != nil {
		return err
	}
	attr := &syscall.ProcAttr{
		Dir: cmd.dir,
		Env: cmd.env,
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: r.TTY, Credential: cmd.user.credential()},
	}
	for _, fd := range stdio.child {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	ended := make(chan syscall.WaitStatus, 1)
	pid, err := p.session.children.start(
		func() (int, error) { return syscall.ForkExec(cmd.path, cmd.args, attr) },
		func(ws syscall.WaitStatus) { ended <- ws })
	stdio.closeChild()
	if err != nil {
		stdio.closeOurs()
		return &startError{cmd.args[0], err}
	}
	p.begun(pid, stdio.tty)

	go p.feed(stdio)
	var output sync.WaitGroup
	for i, out := range p.outputs {
		output.Go(func() { p.drain(out, stdio.out[i]) })
	}
	ws := <-ended
	for _, f := range stdio.out {
		f.SetReadDeadline(time.Unix(1, 0)) // take what is there, see tail
	}
	p.stdin.Close()
	if stdio.tty == nil {
		stdio.in.Close()
	}
	p.exit(status(ws))
	output.Wait()
	return nil
}

// begun makes signals and sizes go to the process, also those that came early.
func (p *process) begun(pid int, tty *os.File) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pid, p.tty = pid, tty
	for _, sig := range p.pending {
		p.session.children.signal(pid, sig)
	}
	p.pending = nil
	p.setSize()
}

func (p *process) signal(sig int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sig < 1 || sig > 64 {
		return
	}
	if p.pid != 0 {
		p.session.children.signal(p.pid, sig)
	} else if len(p.pending) < 16 {
		p.pending = append(p.pending, sig)
	}
}

func (p *process) resize(rows, cols uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rows, p.cols = rows, cols
	p.setSize()
}

func (p *process) setSize() {
	if p.tty != nil {
		setSize(p.tty, p.rows, p.cols)
	}
}

// exit tells how the command ended. Its output may still be on its way.
func (p *process) exit(e wire.Exit) {
	p.session.mu.Lock()
	delete(p.session.running, p.call)
	p.session.mu.Unlock()
	p.session.link.Send(context.Background(), p.call, wire.KindExit, e)
}

// feed carries stdin to the command until either end has had enough.
func (p *process) feed(s *stdio) {
	p.stdin.WriteTo(s.in)
	p.stdin.Close()
	if s.tty == nil {
		s.in.Close()
	}
}

// drain carries output to the host. When the command has ended, what it wrote
// is sent and the stream ends, although a child of its own may hold the other
// end open; such a child goes on writing, into nothing.
func (p *process) drain(out *wire.Outbound, f *os.File) {
	t := &tail{f: f}
	_, err := out.ReadFrom(t)
	out.Close()
	if err != nil || !t.cut {
		f.Close()
		return
	}
	if p.session.keep(f) {
		go func() {
			io.Copy(io.Discard, f)
			p.session.release(f)
		}()
	}
}

// A tail reads a pipe or terminal until its end, or, once a deadline has been
// set, until what was in it then has been read.
type tail struct {
	f    *os.File
	cut  bool // the deadline has come
	left int  // the most to be read after it
}

// maxTerminal is more than the kernel keeps of a terminal's output (640 KiB
// and a line discipline's 4 KiB), so a child that writes on cannot make a
// tail endless.
const maxTerminal = 1 << 20

func (t *tail) Read(b []byte) (int, error) {
	if !t.cut {
		n, err := t.f.Read(b)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, ended(err)
		}
		if err := t.f.SetReadDeadline(time.Time{}); err != nil {
			return 0, err
		}
		t.cut, t.left = true, maxTerminal
		if !isTTY(t.f) {
			t.left = waiting(t.f)
		}
	}
	n, err := readReady(t.f, b[:min(len(b), t.left)])
	t.left -= n
	if n == 0 && err == nil || errors.Is(err, syscall.EAGAIN) {
		return 0, io.EOF
	}
	if err = ended(err); err == io.EOF {
		t.cut = false
	}
	return n, err
}

// ended is err, where a terminal that no process has open has ended.
func ended(err error) error {
	if errors.Is(err, syscall.EIO) {
		return io.EOF
	}
	return err
}

// readReady reads without waiting. The kernel passes a terminal's output on
// in the background; a read finishes that before it says EAGAIN, which
// TIOCINQ does not.
func readReady(f *os.File, b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	c, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	if cerr := c.Read(func(fd uintptr) bool {
		for {
			if n, err = unix.Read(int(fd), b); err != syscall.EINTR {
				return true
			}
		}
	}); cerr != nil {
		return 0, cerr
	}
	return max(n, 0), err
}

// waiting is how many bytes a pipe holds.
func waiting(f *os.File) int {
	n := 0
	if c, err := f.SyscallConn(); err == nil {
		c.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	}
	return n
}

// status is an ended process's exit, as a shell tells it.
func status(ws syscall.WaitStatus) wire.Exit {
	if ws.Signaled() {
		return wire.Exit{Code: 128 + int(ws.Signal())}
	}
	return wire.Exit{Code: ws.ExitStatus()}
}

// A startError is a command that could not be executed.
type startError struct {
	name string
	err  error
}

func (e *startError) Error() string { return "run " + e.name + ": " + e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

// failure is the exit of a command that was not started: 127 if there is
// none, 126 if there is, else 125.
func failure(err error) wire.Exit {
	var start *startError
	switch {
	case !errors.As(err, &start):
		return wire.Exit{Code: 125, Reason: err.Error()}
	case errors.Is(err, errNotFound), errors.Is(err, syscall.ENOENT):
		return wire.Exit{Code: 127, NotFound: true, Reason: err.Error()}
	}
	return wire.Exit{Code: 126, NotExecutable: true, Reason: err.Error()}
}
