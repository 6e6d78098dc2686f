package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/cutoutdev/cutout/internal/guest"
	"github.com/cutoutdev/cutout/internal/vm"
	"github.com/cutoutdev/cutout/internal/vm/qemu"
	"github.com/cutoutdev/cutout/internal/vm/snapshot"
)

// A machine that has booted, with its image in place and nothing of any
// sandbox in it, is the same for every sandbox of its kind. So the first
// sandbox of a kind boots, and its machine is stored before it is told
// anything; the next begin with what was stored. Whatever is wrong with that
// costs the time of a boot and a line to the user, never the sandbox.

// startMachine starts the machine and connects to its agent.
func (s *sandbox) startMachine(ctx context.Context, spec vm.Spec) error {
	g, err := s.golden(spec)
	if err != nil {
		s.remark(fmt.Sprintf("no snapshot can be used (%v); booting", err))
	}
	if g == nil {
		return s.bootMachine(ctx, spec)
	}
	done, again, err := s.restoreMachine(ctx, spec, g)
	if done || err != nil {
		return err
	}
	if err := s.bootMachine(ctx, spec); err != nil || !again {
		return err
	}
	return s.saveMachine(ctx, spec, g)
}

// A golden is where the snapshot of a sandbox's machine is, or goes.
type golden struct {
	store snapshot.Store
	kind  snapshot.Kind
}

// golden returns nil for a machine that does not begin with a snapshot: one
// with disks of its own, and one under KVM, which boots in a moment and whose
// state depends on the host's processor.
func (s *sandbox) golden(spec vm.Spec) (*golden, error) {
	if s.spec.Machine.Snapshots == "" || spec.Accel != vm.TCG || len(spec.Disks) != 1 {
		return nil, nil
	}
	machine, files, err := qemu.Describe(spec)
	if err != nil {
		return nil, err
	}
	kind := snapshot.Kind{Machine: machine, TSCKHz: vm.TSCKHz()}
	for _, path := range append(files, s.spec.Machine.Disk) {
		f, err := snapshot.Stat(path)
		if err != nil {
			return nil, err
		}
		kind.Files = append(kind.Files, f)
	}
	return &golden{snapshot.Store{Dir: s.spec.Machine.Snapshots}, kind}, nil
}

// bootMachine boots the machine.
func (s *sandbox) bootMachine(ctx context.Context, spec vm.Spec) (err error) {
	s.machine, err = qemu.Boot(ctx, spec, s.agent(guest.Connect))
	return err
}

// agent keeps the client that connect makes.
func (s *sandbox) agent(connect func(context.Context, io.ReadWriteCloser) (*guest.Client, error)) func(context.Context, net.Conn) error {
	return func(ctx context.Context, control net.Conn) (err error) {
		s.guest, err = connect(ctx, control)
		return err
	}
}

// restoreMachine starts the machine from its snapshot, if there is one that
// works. If not, again says that a boot is to leave one.
func (s *sandbox) restoreMachine(ctx context.Context, spec vm.Spec, g *golden) (done, again bool, err error) {
	state, err := g.store.Open(g.kind)
	if err == nil {
		s.machine, err = qemu.Restore(ctx, spec, state, s.agent(guest.Wake))
		state.Close()
	}
	switch {
	case err == nil:
		s.restored = true
		return true, false, nil
	case ctx.Err() != nil:
		return false, false, err
	case errors.Is(err, snapshot.ErrNone):
		return false, true, nil
	case g.store.Refused(g.kind, err):
		s.remark(fmt.Sprintf("%v; booting", err))
		return false, true, nil
	case errors.Is(err, snapshot.ErrFailed): // was said then
	case errors.Is(err, qemu.ErrNoMemory): // no fault of the snapshot
	default:
		g.store.Fail(g.kind, err)
		s.remark(fmt.Sprintf("the machine did not start from its snapshot (%v); booting", err))
	}
	return false, false, nil
}

// saveTimeout is how long a save may take: many times what it takes on a
// machine that is busy.
const saveTimeout = 30 * time.Second

// stateRoom is what the state of a machine takes beside its memory: ROMs,
// devices and the heads of records.
const stateRoom = 64 << 20

// saveMachine stores the machine, which has booted and knows nothing yet, for
// the next sandboxes.
func (s *sandbox) saveMachine(ctx context.Context, spec vm.Spec, g *golden) error {
	if is := s.machine.Spec(); is.Accel != spec.Accel || is.Verbose != spec.Verbose {
		return nil // booted at the second try, as another kind
	}
	w, err := g.store.Create(g.kind, int64(s.memoryMiB())<<20+stateRoom)
	if errors.Is(err, snapshot.ErrBusy) || errors.Is(err, snapshot.ErrFailed) {
		return nil
	}
	if err == nil {
		defer w.Abort()
		if err := s.guest.Prepare(ctx, rootSerial); err != nil {
			return err
		}
		limit, cancel := context.WithTimeout(ctx, saveTimeout)
		defer cancel()
		if err = s.machine.Save(limit, w); err == nil {
			err = w.Commit()
		}
		if err == nil {
			s.record("stored:", "the machine as it has booted, for the next sandboxes")
		}
	}
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	g.store.Fail(g.kind, err)
	s.remark(fmt.Sprintf("the machine was not stored for the next sandboxes: %v", err))
	if !errors.Is(err, qemu.ErrStopped) {
		return nil
	}
	s.machine.Kill()
	return s.bootMachine(ctx, spec)
}

// remark tells the user and the audit log.
func (s *sandbox) remark(text string) {
	s.tell.notice(text)
	s.record("snapshot:", text)
}

func (s *sandbox) memoryMiB() int {
	if m := s.spec.Machine.MemoryMiB; m != 0 {
		return m
	}
	return vm.DefaultMemoryMiB
}
