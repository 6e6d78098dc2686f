package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/cutoutdev/cutout/internal/vm"
)

// Save stops the guest, writes the state of the machine to w and lets the
// guest go on, also if that failed. The state begins a machine of the same
// spec anywhere ([Restore]); it has all of the guest's memory, and of disks
// nothing. An error that wraps ErrStopped means that the guest did not go on.
func (m *Machine) Save(ctx context.Context, w io.Writer) error {
	if err := m.Stop(ctx); err != nil {
		return fmt.Errorf("save the machine: %w", err)
	}
	err := m.save(ctx, w)
	if cerr := m.Resume(ctx); cerr != nil {
		err = errors.Join(fmt.Errorf("%w: %w", ErrStopped, cerr), err)
	}
	if err != nil {
		return fmt.Errorf("save the machine: %w", err)
	}
	return nil
}

// ErrStopped is an error of Save after which the machine is of no use.
var ErrStopped = errors.New("the guest did not go on")

// QEMU limits itself to 128 MiB/s for the sake of networks.
const maxBandwidth = 1 << 40

func (m *Machine) save(ctx context.Context, w io.Writer) error {
	r, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	widen(theirs)
	stop := context.AfterFunc(ctx, func() { r.SetReadDeadline(time.Now()) })
	defer stop()
	_, err = m.monitor.execute(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(maxBandwidth)}, nil)
	if err == nil {
		_, err = m.monitor.execute(ctx, "getfd", map[string]any{"fdname": "state"}, theirs)
	}
	theirs.Close()
	if err != nil {
		return err
	}
	if _, err := m.monitor.execute(ctx, "migrate", map[string]any{"uri": "fd:state"}, nil); err != nil {
		return err
	}
	err = copyState(w, r)
	r.Close()                                // or QEMU would wait for a reader that has given up
	if merr := m.migrated(ctx); err == nil { // else it failed for want of a reader
		err = merr
	}
	return err
}

// migrated waits until QEMU says how a migration has ended.
func (m *Machine) migrated(ctx context.Context) error {
	for ; ; time.Sleep(time.Millisecond) {
		reply, err := m.monitor.execute(ctx, "query-migrate", nil, nil)
		if err != nil {
			return err
		}
		var v struct {
			Status string `json:"status"`
			Why    string `json:"error-desc"`
		}
		if err := json.Unmarshal(reply, &v); err != nil {
			return fmt.Errorf("read the monitor's answer: %w", err)
		}
		switch v.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return fmt.Errorf("qemu could not write its state: %s", clip(v.Why))
		}
	}
}

// RestoreTimeout is how long a machine may take from its state to the agent's
// hello, where a boot of it works too: many times what it takes on a machine
// that is busy.
const RestoreTimeout = 20 * time.Second

// Restore starts a machine from what Save has written of one with the same
// spec, and connects to its agent as Boot does. The guest runs only once
// state has been read to its end: a Read that fails, because what was read is
// not what was written, ends the machine. There is no second try.
func Restore(ctx context.Context, s vm.Spec, state io.Reader, connect func(ctx context.Context, control net.Conn) error) (*Machine, error) {
	s.BootTimeout = RestoreTimeout
	theirs, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	widen(w)
	fed := make(chan struct{})
	var bad error // of state
	go func() {
		defer close(fed)
		bad = feed(w, state)
	}()
	m, err := boot(ctx, s, theirs, func(ctx context.Context, m *Machine) error {
		select {
		case <-fed:
		case <-ctx.Done():
			return ctx.Err()
		}
		if bad != nil {
			m.Kill()
			return bad
		}
		if err := m.arrived(ctx); err != nil {
			return err
		}
		if err := m.Resume(ctx); err != nil {
			return err
		}
		return connect(ctx, m.Control())
	})
	theirs.Close() // so that nobody is left who could read
	<-fed
	if bad != nil {
		return nil, bad
	}
	return m, err
}

// arrived waits until QEMU has taken over its state. Told to go on before, it
// would stand still as the machine did that was saved.
func (m *Machine) arrived(ctx context.Context) error {
	for ; ; time.Sleep(time.Millisecond) {
		reply, err := m.monitor.execute(ctx, "query-status", nil, nil)
		if err != nil {
			return err
		}
		var v struct {
			Status string `json:"status"`
		}
		if err := json.Unmarshal(reply, &v); err != nil {
			return fmt.Errorf("read the monitor's answer: %w", err)
		}
		if v.Status != "inmigrate" {
			return nil
		}
	}
}

// feed copies state to w and closes it. It returns only errors of state: what
// happens to w shows in the machine.
func feed(w *os.File, state io.Reader) error {
	defer w.Close()
	buf := make([]byte, 256<<10)
	for empty := true; ; {
		n, err := state.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return nil
			}
		}
		if empty = empty && n == 0; empty && err == io.EOF {
			return io.ErrUnexpectedEOF // for which QEMU would wait
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
