package qemu

import (
	"os"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/vm"
)

func TestArgs(t *testing.T) {
	q := &Install{Binary: "/usr/bin/qemu-system-x86_64", Firmware: "/usr/share/qemu"}
	s := vm.Spec{
		Kernel: "/k", Initrd: "/i", Cmdline: "extra=1", NIC: os.Stdin, MAC: "02:00:00:00:00:09",
		Disks: []vm.Disk{{File: os.Stdin, Serial: "root"}, {File: os.Stdin, Writable: true}},
	}
	line := strings.Join(args(&s, q, 2600000, false), " ")
	for _, want := range []string{
		"-nodefaults -no-user-config", "-accel tcg -cpu max,erms=off,fsrm=off,svm=off,vmx=off", "-m 512 -smp 1",
		"-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-bios /usr/share/qemu/qboot.rom", "tsc_early_khz=2600000", "extra=1",
		"addr.type=fd,addr.str=6", "mac=02:00:00:00:00:09,host_mtu=65520",
		"fd=7,set=1", "readonly=on,file=/dev/fdset/1", "drive=disk0,serial=root",
		"fd=8,set=2", "readonly=off,file=/dev/fdset/2",
	} {
		if !strings.Contains(line, want) {
			t.Errorf("no %q in %s", want, line)
		}
	}
	s.Accel, s.Nested = vm.KVM, true
	line = strings.Join(args(&s, q, 2600000, false), " ")
	if strings.Contains(line, "tsc_early_khz") || !strings.Contains(line, "-accel kvm -cpu host -m") {
		t.Errorf("under KVM: %s", line)
	}
	// Nothing is reached by name: every channel is a descriptor.
	for _, bad := range []string{"path=", "port=", "host=", "file=/t", "exec:"} {
		if strings.Contains(line, bad) {
			t.Errorf("%q in %s", bad, line)
		}
	}
}

func TestReason(t *testing.T) {
	for _, tt := range []struct {
		message, stop string
		killed        bool
		want          error
	}{
		{"qemu: cannot set up guest memory 'microvm.ram': Cannot allocate memory", "", false, ErrNoMemory},
		{"Could not access KVM kernel module: Permission denied", "", false, ErrAccel},
		{"failed to initialize kvm: Permission denied", "", false, ErrAccel},
		{"qemu: could not open kernel file '/k/vmlinux': Permission denied", "", false, ErrKernel},
		{"qemu: linux kernel too old to load a ram disk", "", false, ErrKernel},
		{"Error loading uncompressed kernel without PVH ELF Note", "", false, ErrKernel},
		{"", "guest-reset", false, ErrGuestReset},
		{"", "guest-shutdown", false, nil},
		{"", "", true, ErrKilled},
		{"error: something", "", false, nil},
	} {
		if got := reason(tt.message, tt.stop, tt.killed); got != tt.want {
			t.Errorf("%q, %q: %v", tt.message, tt.stop, got)
		}
	}
}
