package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cutoutdev/cutout/internal/vm"
	"github.com/cutoutdev/cutout/internal/vm/cage"
)

// A Machine is a running QEMU.
type Machine struct {
	spec    vm.Spec
	proc    *cage.Process
	control net.Conn
	monitor *monitor
	console *tail // the guest's
	stderr  *tail // QEMU's own

	done    chan struct{}
	err     error // of Wait, once done
	killed  atomic.Bool
	drained sync.WaitGroup
}

// An ExitError says how a machine ended that was not asked to end.
type ExitError struct {
	Reason  error  // one of the package's errors, or nil
	State   string // "exit status 1", "signal: killed"
	Message string // the last that QEMU said
	Console string // the last that the guest said; the guest's text
}

func (e *ExitError) Error() string {
	s := "the machine ended early: " + e.State
	if e.Reason != nil {
		s = e.Reason.Error()
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

func (e *ExitError) Unwrap() error { return e.Reason }

const kvmDevice = "/dev/kvm"

// Start starts a machine. ctx limits only the start. The caller keeps the
// spec's files and closes them when it likes.
func Start(ctx context.Context, s vm.Spec) (*Machine, error) { return start(ctx, s, nil) }

func start(ctx context.Context, s vm.Spec, state *os.File) (*Machine, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	q, err := Find(s.QEMU)
	if err != nil {
		return nil, err
	}
	khz := 0
	switch s.Accel {
	case vm.TCG:
		khz = vm.TSCKHz()
	case vm.KVM:
		if _, err := os.Stat(kvmDevice); err != nil { // gone since it was probed
			return nil, &ExitError{Reason: ErrAccel, State: "not started", Message: err.Error()}
		}
	}
	m := &Machine{spec: s, done: make(chan struct{}), console: newTail(), stderr: newTail()}
	if err := m.start(ctx, q, args(&s, q, khz, state != nil), state); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Machine) start(ctx context.Context, q *Install, argv []string, state *os.File) (err error) {
	var theirs []*os.File // QEMU's ends
	var ours []net.Conn
	// Once QEMU has its copies ours must go, or its end would not be seen.
	release := func() {
		for _, f := range theirs {
			f.Close()
		}
	}
	defer func() {
		release()
		if err != nil {
			for _, c := range ours {
				c.Close()
			}
		}
	}()
	for range fdFree - fdMonitor {
		c, f, err := pair()
		if err != nil {
			return err
		}
		ours, theirs = append(ours, c), append(theirs, f)
	}
	files := slices.Clone(theirs)
	if m.spec.NIC != nil {
		files = append(files, m.spec.NIC)
	}
	for _, d := range m.spec.Disks {
		f := d.File
		if !d.Writable {
			if f, err = readOnly(f); err != nil {
				return err
			}
			theirs = append(theirs, f)
		}
		files = append(files, f)
	}
	if state != nil {
		files = append(files, state)
	}
	errRead, errWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	cfg := cage.Config{
		Path: q.Binary, Args: argv, Plugins: q.Plugins,
		Read:  append([]string{m.spec.Kernel, m.spec.Initrd}, q.Files...),
		Files: files, Stdout: errWrite, Stderr: errWrite, Weak: m.spec.WeakCage,
	}
	if m.spec.Accel == vm.KVM {
		cfg.Devices = []string{kvmDevice}
	}
	m.proc, err = cage.Start(cfg)
	errWrite.Close()
	release()
	if err != nil {
		errRead.Close()
		return err
	}
	console := ours[fdConsole-fdMonitor]
	m.drained.Go(func() { m.stderr.drain(errRead, nil); errRead.Close() })
	m.drained.Go(func() { m.console.drain(console, m.spec.Console); console.Close() })
	m.control = ours[fdControl-fdMonitor]
	m.monitor = newMonitor(ours[0])
	go m.wait()
	if err := m.monitor.negotiate(ctx); err != nil {
		select {
		case <-m.done: // what it says of its own end explains more
		case <-ctx.Done():
		case <-time.After(dying):
		}
		m.Kill()
		if werr := m.Wait(); errors.Is(werr, ErrNoMemory) || errors.Is(werr, ErrAccel) || werr != nil && ctx.Err() == nil {
			return werr
		}
		return err
	}
	return nil
}

// wait waits for QEMU's end and judges it.
func (m *Machine) wait() {
	state, err := m.proc.Wait()
	m.drained.Wait()
	m.monitor.wait()
	said := lastLine(m.stderr.String())
	switch {
	case err != nil:
		m.err = err
	case m.killed.Load() && said == "", state.Success() && m.monitor.stopReason() != "guest-reset":
	default:
		e := &ExitError{State: state.String(), Message: said, Console: m.console.String()}
		e.Reason = reason(said, m.monitor.stopReason(), e.State == killed && !m.killed.Load())
		m.err = e
	}
	close(m.done)
}

// killed is the state of a process that was ended with SIGKILL.
const killed = "signal: killed"

// reason recognises what QEMU says on standard error, an end that the guest
// brought about, and one that nobody here did.
func reason(message, stop string, killed bool) error {
	for _, known := range []struct {
		text string
		err  error
	}{
		{"annot set up guest memory", ErrNoMemory},
		{"Cannot allocate memory", ErrNoMemory},
		{"failed to initialize kvm", ErrAccel},
		{"KVM", ErrAccel},
		{"could not open kernel", ErrKernel},
		{"could not load kernel", ErrKernel},
		{"loading uncompressed kernel", ErrKernel},
		{"linux kernel too old", ErrKernel},
	} {
		if strings.Contains(message, known.text) {
			return known.err
		}
	}
	switch {
	case stop == "guest-reset":
		return ErrGuestReset
	case killed:
		return ErrKilled
	}
	return nil
}

// Control is the host's end of the agent's port; a machine that Boot returned
// has it in use. Kill closes it. When the machine ends by itself, what it said
// last can still be read, to the end of file.
func (m *Machine) Control() net.Conn { return m.control }

// Spec is what the machine is, which after a retry is not what was asked for.
func (m *Machine) Spec() vm.Spec { return m.spec }

// Accel is what the machine runs on, which after a retry is not what the spec
// said.
func (m *Machine) Accel() vm.Accel { return m.spec.Accel }

// Layers says what surrounds the machine.
func (m *Machine) Layers() cage.Layers { return m.proc.Layers() }

// Pid is QEMU's process id.
func (m *Machine) Pid() int { return m.proc.Pid() }

// Console is the last of what the guest wrote to its console, guest-chosen
// text.
func (m *Machine) Console() string { return m.console.String() }

// Done is closed when the machine has ended.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Wait waits until the machine has ended. It returns nil if the guest powered
// off or the machine was killed by Kill or Quit, else an *ExitError.
func (m *Machine) Wait() error {
	<-m.done
	return m.err
}

// Kill ends the machine at once and waits until it is gone.
func (m *Machine) Kill() {
	m.killed.Store(true)
	m.proc.Kill()
	m.control.Close()
	<-m.done
}

// Stop stops the guest's CPUs; Resume lets them go on.
func (m *Machine) Stop(ctx context.Context) error {
	_, err := m.monitor.execute(ctx, "stop", nil, nil)
	return err
}

// Resume continues after Stop.
func (m *Machine) Resume(ctx context.Context) error {
	_, err := m.monitor.execute(ctx, "cont", nil, nil)
	return err
}

// Quit asks QEMU to end, which closes disks in good order.
func (m *Machine) Quit(ctx context.Context) error {
	m.killed.Store(true)
	if _, err := m.monitor.execute(ctx, "quit", nil, nil); err != nil && !errors.Is(err, errClosed) {
		return err
	}
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// DumpMemory writes all of the guest's memory to f, a file open for writing,
// as an ELF core. The guest stands still meanwhile.
func (m *Machine) DumpMemory(ctx context.Context, f *os.File) error {
	if _, err := m.monitor.execute(ctx, "getfd", map[string]any{"fdname": "dump"}, f); err != nil {
		return fmt.Errorf("dump memory: %w", err)
	}
	arg := map[string]any{"paging": false, "protocol": "fd:dump"}
	if _, err := m.monitor.execute(ctx, "dump-guest-memory", arg, nil); err != nil {
		return fmt.Errorf("dump memory: %w", err)
	}
	return nil
}
