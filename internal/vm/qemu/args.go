package qemu

import (
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/cutoutdev/cutout/internal/vm"
)

// Descriptors of QEMU. Those of NIC and disks follow.
const (
	fdMonitor = 3 + iota
	fdControl
	fdConsole
	fdFree
)

// Bare is a command line for the machine of s with its processor, memory,
// firmware, kernel and initramfs, and without devices, channels and cage: what
// a sandbox is measured against.
func Bare(s vm.Spec, q *Install) []string {
	khz := 0
	if s.Accel == vm.TCG {
		khz = vm.TSCKHz()
	}
	return append([]string{q.Binary}, base(&s, q, khz)...)
}

// Describe says what a machine of s is and which files it is made from, disks
// aside: the state of one machine fits another of the same description.
func Describe(s vm.Spec) (machine, files []string, err error) {
	q, err := Find(s.QEMU)
	if err != nil {
		return nil, nil, err
	}
	files = append([]string{q.Binary, s.Kernel, s.Initrd}, q.Files...)
	files = append(files, q.Plugins...)
	s.Kernel, s.Initrd = "kernel", "initrd" // wherever they lie
	return args(&s, q, 0, false), files, nil
}

// args is QEMU's command line. tscKHz is the rate of the host's time stamp
// counter, 0 if unknown. A machine that begins with a state finds it behind
// its last descriptor, and stands still until it is told to go on.
func args(s *vm.Spec, q *Install, tscKHz int, state bool) []string {
	a := append([]string{filepath.Base(q.Binary)}, base(s, q, tscKHz)...)
	a = append(a,
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-global", "virtio-mmio.force-legacy=false",
		"-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", fdMonitor), "-mon", "chardev=monitor,mode=control",
		"-chardev", fmt.Sprintf("socket,id=console,fd=%d", fdConsole), "-serial", "chardev:console",
		"-device", "virtio-serial-device,max_ports=2", "-chardev", fmt.Sprintf("socket,id=control,fd=%d", fdControl),
		"-device", "virtserialport,chardev=control,name="+ControlPort,
		"-device", "virtio-rng-device")
	fd := fdFree
	if s.NIC != nil {
		mac, mtu := s.MAC, s.MTU
		if mac == "" {
			mac = "02:00:00:00:00:02"
		}
		if mtu == 0 {
			mtu = 65520
		}
		a = append(a,
			"-netdev", fmt.Sprintf("stream,id=net,server=off,addr.type=fd,addr.str=%d", fd),
			"-device", fmt.Sprintf("virtio-net-device,netdev=net,mac=%s,host_mtu=%d", mac, mtu))
		fd++
	}
	for i, d := range s.Disks {
		readonly := "on"
		if d.Writable {
			readonly = "off"
		}
		dev := fmt.Sprintf("virtio-blk-device,drive=disk%d", i)
		if d.Serial != "" {
			dev += ",serial=" + d.Serial
		}
		a = append(a,
			"-add-fd", fmt.Sprintf("fd=%d,set=%d", fd, i+1),
			"-drive", fmt.Sprintf("if=none,id=disk%d,format=raw,readonly=%s,file=/dev/fdset/%d", i, readonly, i+1),
			"-device", dev)
		fd++
	}
	if state {
		a = append(a, "-incoming", fmt.Sprintf("fd:%d", fd), "-S")
	}
	return a
}

// base is the machine without its devices.
func base(s *vm.Spec, q *Install, tscKHz int) []string {
	memory, cpus := s.MemoryMiB, s.CPUs
	if memory == 0 {
		memory = vm.DefaultMemoryMiB
	}
	if cpus == 0 {
		cpus = vm.DefaultCPUs
	}
	return []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-M", "microvm", "-accel", s.Accel.String(), "-cpu", processor(s),
		"-m", strconv.Itoa(memory), "-smp", strconv.Itoa(cpus),
		// Named outright: bios-microvm.bin may be SeaBIOS, with which guests
		// reset before the kernel.
		"-L", q.Firmware, "-bios", filepath.Join(q.Firmware, "qboot.rom"),
		"-kernel", s.Kernel, "-initrd", s.Initrd, "-append", cmdline(s, tscKHz),
	}
}

// processor is the guest's. Emulated, it does not say that its string
// instructions are fast on bytes: kernel and libc would clear and copy memory
// a byte at a time, which took an eighth of the start.
func processor(s *vm.Spec) string {
	cpu := "max,erms=off,fsrm=off"
	if s.Accel == vm.KVM {
		cpu = "host"
	}
	if !s.Nested {
		cpu += ",svm=off,vmx=off"
	}
	return cpu
}

// cmdline is the kernel's command line. The crypto self tests cost an emulated
// guest half a second; a panic ends the machine at once (-no-reboot).
func cmdline(s *vm.Spec, tscKHz int) string {
	c := "quiet"
	if s.Verbose {
		c = "console=ttyS0"
	}
	c += " cryptomgr.notests panic=-1"
	// An emulated guest reads the host's counter, and cannot calibrate it
	// when the host preempts QEMU: it then has no clock at all and hangs.
	// Under KVM kvmclock knows the rate.
	if s.Accel == vm.TCG && tscKHz > 0 {
		// Reliable: there is nothing to check it against, and the watchdog
		// that tries would leave the guest with a clock of 4 ms ticks.
		c += " tsc_early_khz=" + strconv.Itoa(tscKHz) + " tsc=reliable"
	}
	if s.Cmdline != "" {
		c += " " + s.Cmdline
	}
	return c
}
