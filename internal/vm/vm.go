// Package vm describes a virtual machine and what this host can run it with.
//
// It holds no machinery for a particular monitor: [vm/qemu] starts machines,
// [vm/cage] confines them, [vm/kernel] prepares what they boot. What it does
// itself is to find out, quickly and without ever hanging, whether /dev/kvm
// works ([ProbeKVM]) and how fast the host's clock runs ([TSCKHz]).
package vm

import (
	"fmt"
	"io"
	"os"
	"time"
)

// Accel is what executes the guest's instructions.
type Accel uint8

const (
	TCG Accel = iota // software emulation: works everywhere, about 20 times slower
	KVM              // Linux hardware virtualisation
	HVF              // macOS hardware virtualisation; untested
)

func (a Accel) String() string {
	switch a {
	case TCG:
		return "tcg"
	case KVM:
		return "kvm"
	case HVF:
		return "hvf"
	}
	return fmt.Sprintf("accel(%d)", uint8(a))
}

// A Disk is a block device of the guest. The machine gets the open file, never
// its path.
type Disk struct {
	File     *os.File
	Serial   string // how the guest finds it, in /sys/block/*/serial; at most 20 bytes
	Writable bool   // the file must then be open for writing
}

// DefaultMemoryMiB and DefaultCPUs are what a Spec that says nothing gets.
const (
	DefaultMemoryMiB = 512
	DefaultCPUs      = 1
)

// A Spec describes one machine. Kernel and Initrd are required, everything
// else has a useful zero value. It never holds a secret: all of it may be read
// in the argv of the monitor.
type Spec struct {
	Kernel  string // PVH vmlinux, as [kernel.Install] leaves it
	Initrd  string
	Cmdline string // appended to the kernel command line

	MemoryMiB int // 0 = DefaultMemoryMiB
	CPUs      int // 0 = DefaultCPUs
	Disks     []Disk

	// NIC is the monitor's end of a stream socket pair that carries Ethernet
	// frames, each after its length as 4 bytes, big-endian. Nil = no NIC.
	// The caller keeps it and may close it once the machine has started.
	NIC *os.File
	MAC string // "" = 02:00:00:00:00:02
	MTU int    // what the guest's driver takes by itself; 0 = 65520

	Accel Accel

	// Nested lets the guest run machines of its own, where that can be
	// emulated. Off, it is kept away from the host's code for it.
	Nested bool

	// Console gets what the guest writes to its serial console, up to 4 MiB,
	// from the reading goroutine of the machine. Nil = only the last part is kept, for
	// errors. The kernel is told to use the console only if Verbose.
	Console io.Writer
	Verbose bool

	// WeakCage starts the machine even where a part of the cage's minimum is
	// missing. An escape from the guest is then not contained.
	WeakCage bool

	// BootTimeout limits the time from start to the agent's hello.
	// 0 = DefaultBootTimeout.
	BootTimeout time.Duration

	QEMU string // path of the monitor's binary; "" = looked for in the usual places

	// Notice gets one-line remarks for the user ("KVM failed, …"). Nil = dropped.
	Notice func(string)
}

// DefaultBootTimeout is how long a machine may take until its agent says
// hello. An emulated boot takes 2 to 4 s on an idle core, one under KVM less
// than that, and one under KVM that is itself emulated 20; the limit leaves
// room for a host that is many times overcommitted.
const DefaultBootTimeout = 90 * time.Second

// Check reports a Spec that no monitor could run.
func (s *Spec) Check() error {
	switch {
	case s.Kernel == "" || s.Initrd == "":
		return fmt.Errorf("no kernel or no initramfs given")
	case s.MemoryMiB != 0 && s.MemoryMiB < 128:
		return fmt.Errorf("memory of %d MiB is below the 128 MiB that a guest needs", s.MemoryMiB)
	case s.CPUs < 0 || s.CPUs > 255:
		return fmt.Errorf("%d CPUs are outside 1 to 255", s.CPUs)
	case len(s.Disks) > MaxDisks:
		return fmt.Errorf("%d disks are more than the %d that a machine has slots for", len(s.Disks), MaxDisks)
	}
	for _, d := range s.Disks {
		if d.File == nil || len(d.Serial) > 20 {
			return fmt.Errorf("disk %q has no file or a serial of more than 20 bytes", d.Serial)
		}
	}
	return nil
}

// MaxDisks is what is left of the 24 virtio-mmio slots of the microvm machine
// after console, NIC and entropy source, with one to spare.
const MaxDisks = 20
