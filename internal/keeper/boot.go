package keeper

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cutoutdev/cutout/internal/guest"
	"github.com/cutoutdev/cutout/internal/image"
	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/vm"
	"github.com/cutoutdev/cutout/internal/vm/qemu"
)

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
	if err := s.startMachine(ctx, spec); err != nil {
		return err
	}
	go func() {
		s.machine.Wait()
		s.end(s.died())
	}()
	return s.guest.Configure(ctx, s.guestConfig(volumes))
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
	err := s.machine.Wait()
	switch breach := s.guest.Breach(); {
	case breach != nil: // after which the agent, if it is one, ends the guest
		return fmt.Errorf("the guest's agent is not to be trusted any more: %w", breach)
	case errors.Is(err, qemu.ErrGuestReset): // it had answered
		return errors.New("the guest has crashed or restarted")
	case err != nil:
		return err
	}
	return errors.New("the guest has powered off")
}
