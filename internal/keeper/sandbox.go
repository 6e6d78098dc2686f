package keeper

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/guest"
	"github.com/cutoutdev/cutout/internal/image"
	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/vm"
	"github.com/cutoutdev/cutout/internal/vm/qemu"
)

// A sandbox is what a keeper keeps.
type sandbox struct {
	spec  Spec
	store *secret.Store
	tell  *teller
	end   context.CancelCauseFunc

	log      *audit.Log
	events   fanout
	boundary *boundary
	machine  *qemu.Machine
	guest    *guest.Client
	control  net.Listener
	files    []*os.File // the machine's ends; open as long as it may be restarted
}

// Names of what stands in the sandbox's state directory.
const (
	auditName   = "audit.jsonl"
	consoleName = "console.log"
)

// start brings everything up in the order in which it depends on the other:
// the log before the boundary, the boundary before the guest, the guest
// before the socket.
func (s *sandbox) start(ctx context.Context, secrets []*secret.Secret) (err error) {
	if err := shapePlaceholders(s.store, secrets); err != nil {
		return err
	}
	set, err := secret.NewSet(secrets)
	if err != nil {
		return err
	}
	s.log, err = audit.Create(filepath.Join(s.spec.Dirs.State, auditName), audit.Config{Notify: s.events.tell})
	if err != nil {
		return err
	}
	for _, w := range s.spec.Warnings() {
		s.record("weakened:", w)
	}
	if err := s.record("starting", s.spec.ID); err != nil { // or the first use of a value would find out
		return err
	}
	var link net.Conn
	var nic *os.File
	if !s.spec.Net.Off() {
		if link, nic, err = socketPair("nic"); err != nil {
			return err
		}
		s.files = append(s.files, nic)
	}
	s.boundary, err = newBoundary(boundaryConfig{
		spec: s.spec, set: set, store: s.store, log: s.log, link: link,
		terminate: func(r policy.Reason) {
			s.end(fmt.Errorf("a secret's placeholder was used against the rules: %s", r.What()))
		},
	})
	if err != nil {
		return err
	}
	if err := s.boot(ctx, nic); err != nil {
		return err
	}
	s.record("started", s.machine.Accel().String())
	return s.serve(ctx, set)
}

// rootSerial is how the guest finds the image's disk.
const rootSerial = "root"

// boot starts the machine and configures the guest.
func (s *sandbox) boot(ctx context.Context, nic *os.File) error {
	disks, volumes, err := s.disks(ctx)
	if err != nil {
		return err
	}
	console, err := os.OpenFile(filepath.Join(s.spec.Dirs.State, consoleName), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open console log: %w", err)
	}
	s.files = append(s.files, console)
	m := s.spec.Machine
	spec := vm.Spec{
		Kernel: m.Kernel, Initrd: m.Initrd, MemoryMiB: m.MemoryMiB, CPUs: m.CPUs,
		Disks: disks, NIC: nic, MAC: netstack.DefaultGuestMAC.String(), MTU: netstack.DefaultMTU,
		Accel: s.accel(ctx), Console: console, WeakCage: m.WeakCage, Notice: s.tell.notice,
	}
	s.machine, err = qemu.Boot(ctx, spec, func(ctx context.Context, control net.Conn) error {
		client, err := guest.Connect(ctx, control)
		if err != nil {
			return err
		}
		s.guest = client
		return nil
	})
	if err != nil {
		return err
	}
	go func() {
		s.machine.Wait()
		s.end(s.died())
	}()
	return s.guest.Configure(ctx, s.guestConfig(volumes))
}

// machineEnds is how long a machine may take from closing its channels to
// its end.
const machineEnds = 2 * time.Second

// died returns why the machine has ended, or nil if it does not.
func (s *sandbox) died() error {
	select {
	case <-s.machine.Done():
	case <-time.After(machineEnds):
		return nil
	}
	if err := s.machine.Wait(); err != nil {
		return err
	}
	return errors.New("the guest has powered off")
}

// accel asks whether this host's KVM works and says so if it does not.
func (s *sandbox) accel(ctx context.Context) vm.Accel {
	v := vm.ProbeKVM(ctx)
	if v.Usable {
		return vm.KVM
	}
	s.tell.notice("KVM is not usable (" + v.Reason + "): running under software emulation, which is slow")
	return vm.TCG
}

// disks opens the image and makes one disk of every volume. A volume's disk
// has no name: it is gone with the keeper.
func (s *sandbox) disks(ctx context.Context) ([]vm.Disk, []guest.Volume, error) {
	root, err := os.Open(s.spec.Machine.Disk)
	if err != nil {
		return nil, nil, fmt.Errorf("open image: %w", err)
	}
	s.files = append(s.files, root)
	disks := []vm.Disk{{File: root, Serial: rootSerial}}
	var volumes []guest.Volume
	progress := s.tell.progress()
	for i, v := range s.spec.Machine.Volumes {
		f, err := os.CreateTemp(s.spec.Dirs.State, "volume")
		if err != nil {
			return nil, nil, fmt.Errorf("make volume: %w", err)
		}
		s.files = append(s.files, f)
		os.Remove(f.Name())
		err = image.WriteDir(ctx, f, v.Source, image.Limits{}, func(_ string, done, total int64) {
			progress("copying "+v.Source, done, total)
		})
		if err != nil {
			return nil, nil, fmt.Errorf("make volume of %s: %w", v.Source, err)
		}
		serial := fmt.Sprintf("volume%d", i)
		disks = append(disks, vm.Disk{File: f, Serial: serial})
		volumes = append(volumes, guest.Volume{Serial: serial, Path: v.Target})
	}
	return disks, volumes, nil
}

func (s *sandbox) guestConfig(volumes []guest.Volume) guest.Config {
	entropy := make([]byte, 64)
	rand.Read(entropy)
	cfg := guest.Config{
		Hostname: s.spec.Guest.Hostname, Time: time.Now(), Entropy: entropy,
		RootSerial: rootSerial, Volumes: volumes,
		CA: s.boundary.ca.CertPEM(), Roots: carriedRoots(),
	}
	if p := s.boundary.plan; !s.spec.Net.Off() {
		cfg.Net = &guest.Net{
			MAC:   netstack.DefaultGuestMAC.String(),
			Addr4: p.guest4, Gateway4: p.gateway4,
			Addr6: p.guest6, Gateway6: p.gateway6,
			MTU: netstack.DefaultMTU,
		}
	}
	return cfg
}

// serve opens the control socket.
func (s *sandbox) serve(ctx context.Context, set *secret.Set) (err error) {
	s.control, err = listen(s.spec.Dirs.Runtime)
	if err != nil {
		return err
	}
	env := s.spec.Guest.Env
	var names []string
	for _, x := range set.All() {
		env = mergeEnv(env, []string{x.Name + "=" + x.Placeholder})
		names = append(names, x.Name)
	}
	c := &control{
		guest: s.guest, env: env, events: &s.events,
		info: func() Info {
			return Info{
				ID: s.spec.ID, Accel: s.machine.Accel().String(), Secrets: names,
				PIDs: []int{os.Getpid(), s.machine.Pid()}, Audit: s.log.Head(),
			}
		},
		dump: s.dumpMemory, died: s.died,
	}
	go c.serve(ctx, s.control)
	return nil
}

// dumpMemory writes the guest's memory to w, by way of a file without a name:
// QEMU needs one that it can seek in.
func (s *sandbox) dumpMemory(ctx context.Context, w io.Writer) error {
	f, err := os.CreateTemp(s.spec.Dirs.State, "memory")
	if err != nil {
		return fmt.Errorf("dump memory: %w", err)
	}
	defer f.Close()
	os.Remove(f.Name())
	if err := s.machine.DumpMemory(ctx, f); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("dump memory: %w", err)
	}
	_, err = io.Copy(w, f)
	return err
}

func (s *sandbox) record(what, detail string) error {
	return s.log.Append(audit.Event{Event: audit.Lifecycle, Detail: what + " " + detail})
}

// close ends what start has brought up, the machine first, and removes the
// runtime directory.
func (s *sandbox) close() {
	if s.machine != nil {
		s.machine.Kill()
		s.machine.Wait()
	}
	if s.control != nil {
		s.control.Close()
	}
	if s.boundary != nil {
		s.boundary.close()
	}
	if s.log != nil {
		s.record("ended", "")
		s.log.Close()
	}
	for _, f := range s.files {
		f.Close()
	}
	os.RemoveAll(s.spec.Dirs.Runtime)
}
