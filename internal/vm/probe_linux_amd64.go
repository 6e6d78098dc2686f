package vm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of linux/kvm.h.
const (
	kvmGetAPIVersion    = 0xae00
	kvmCreateVM         = 0xae01
	kvmGetVCPUMmapSize  = 0xae04
	kvmGetSupportedCPU  = 0xc008ae05
	kvmCreateVCPU       = 0xae41
	kvmSetMemoryRegion  = 0x4020ae46
	kvmSetTSSAddr       = 0xae47
	kvmRun              = 0xae80
	kvmSetRegs          = 0x4090ae82
	kvmGetSregs         = 0x8138ae83
	kvmSetSregs         = 0x4138ae84
	kvmSetCPUID2        = 0x4008ae90
	kvmExitIO           = 2
	kvmExitHLT          = 5
	kvmExitShutdown     = 8
	kvmExitFailEntry    = 9
	kvmExitIntr         = 10
	kvmExitInternal     = 17
	kvmAPI              = 12
	probePort           = 0xf4
	probeWrong          = 0xff
	maxCPUIDEntries     = 256
	exitReasonAt        = 8  // in struct kvm_run
	exitDataAt          = 32 // its union
	guestMemory         = 1 << 20
	codeAt, pml4At      = 0x1000, 0x2000
	pdptAt, pdAt        = 0x3000, 0x4000
	gdtAt, idtAt, tssAt = 0x5000, 0x5100, 0x6000
	stackAt, sseAt      = 0x8000, 0x9200
)

// stages are what the guest has passed when it writes the index plus one.
var stages = []string{
	"entry", "CR3 reload", "MSRs", "paddd", "descriptor tables", "int3", "page fault", "swapgs", "ring 3 and back", "loop",
}

var exitNames = map[uint32]string{
	kvmExitIO: "KVM_EXIT_IO", kvmExitHLT: "KVM_EXIT_HLT", kvmExitShutdown: "KVM_EXIT_SHUTDOWN",
	kvmExitFailEntry: "KVM_EXIT_FAIL_ENTRY", kvmExitInternal: "KVM_EXIT_INTERNAL_ERROR",
}

type kvmSegment struct {
	base                                          uint64
	limit                                         uint32
	selector                                      uint16
	kind, present, dpl, db, s, l, g, avl, unused_ uint8
	_                                             uint8
}

type kvmTable struct {
	base  uint64
	limit uint16
	_     [3]uint16
}

type kvmSregs struct {
	cs, ds, es, fs, gs, ss, tr, ldt         kvmSegment
	gdt, idt                                kvmTable
	cr0, cr2, cr3, cr4, cr8, efer, apicBase uint64
	_                                       [4]uint64
}

type kvmRegs struct {
	_         [6]uint64 // rax rbx rcx rdx rsi rdi
	rsp       uint64
	_         [9]uint64 // rbp r8 … r15
	rip, flag uint64
}

type kvmMemoryRegion struct {
	slot, flags          uint32
	guest, size, hostPtr uint64
}

type kvmCPUID struct {
	n, _    uint32
	entries [maxCPUIDEntries][40]byte
}

func ioctl(fd int, request, arg uintptr) (int, error) {
	for {
		n, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, arg)
		if e == 0 {
			return int(n), nil
		}
		if e != unix.EINTR && e != unix.EAGAIN {
			return 0, e
		}
	}
}

// runProbe runs the guest to its end and says what it found.
func runProbe(progress func(stage string)) (string, error) {
	runtime.LockOSThread()
	kvm, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("cannot open /dev/kvm: %w", err)
	}
	version, err := ioctl(kvm, kvmGetAPIVersion, 0)
	if err != nil {
		return "", fmt.Errorf("KVM_GET_API_VERSION: %w", err)
	}
	if version != kvmAPI {
		return "", fmt.Errorf("API version %d instead of %d", version, kvmAPI)
	}
	vcpu, run, err := newGuest(kvm)
	if err != nil {
		return "", err
	}
	for at := "start"; ; {
		if _, err := ioctl(vcpu, kvmRun, 0); err != nil {
			return "", fmt.Errorf("KVM_RUN: %w after stage %s", err, at)
		}
		stage, err := exit(run)
		if err != nil {
			return "", fmt.Errorf("%w at stage %s", err, next(at))
		}
		if stage == 0 {
			continue
		}
		at = stages[stage-1]
		progress(at)
		if stage == len(stages) {
			return fmt.Sprintf("all %d stages passed", len(stages)), nil
		}
	}
}

// next is the stage that was under way after the one named.
func next(passed string) string {
	for i, s := range stages[:len(stages)-1] {
		if s == passed {
			return stages[i+1]
		}
	}
	return stages[0]
}

// exit judges why the guest stopped: at a stage, 0 for no reason.
func exit(run []byte) (stage int, err error) {
	reason := binary.LittleEndian.Uint32(run[exitReasonAt:])
	data := run[exitDataAt:]
	if reason == kvmExitIntr {
		return 0, nil
	}
	if reason != kvmExitIO {
		name := exitNames[reason]
		if name == "" {
			name = "KVM_EXIT"
		}
		return 0, fmt.Errorf("exit %d %s", reason, name)
	}
	port, offset := binary.LittleEndian.Uint16(data[2:]), binary.LittleEndian.Uint64(data[8:])
	if port != probePort || offset >= uint64(len(run)) {
		return 0, errors.New("an exit for another port")
	}
	stage = int(run[offset])
	if stage == probeWrong {
		return 0, errors.New("a wrong result")
	}
	if stage < 1 || stage > len(stages) {
		return 0, errors.New("a wrong stage")
	}
	return stage, nil
}

// newGuest makes the guest and returns its CPU and the page that it shares
// with the kernel.
func newGuest(kvm int) (vcpu int, run []byte, err error) {
	machine, err := ioctl(kvm, kvmCreateVM, 0)
	if err != nil {
		return 0, nil, fmt.Errorf("KVM_CREATE_VM: %w", err)
	}
	// Where Intel's real mode emulation may put its task state.
	if _, err := ioctl(machine, kvmSetTSSAddr, 0xfffbd000); err != nil {
		return 0, nil, fmt.Errorf("KVM_SET_TSS_ADDR: %w", err)
	}
	mem, err := unix.Mmap(-1, 0, guestMemory, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return 0, nil, fmt.Errorf("map memory: %w", err)
	}
	fillMemory(mem)
	region := kvmMemoryRegion{size: guestMemory, hostPtr: uint64(uintptr(unsafe.Pointer(&mem[0])))}
	if _, err := ioctl(machine, kvmSetMemoryRegion, uintptr(unsafe.Pointer(&region))); err != nil {
		return 0, nil, fmt.Errorf("KVM_SET_USER_MEMORY_REGION: %w", err)
	}
	if vcpu, err = ioctl(machine, kvmCreateVCPU, 0); err != nil {
		return 0, nil, fmt.Errorf("KVM_CREATE_VCPU: %w", err)
	}
	size, err := ioctl(kvm, kvmGetVCPUMmapSize, 0)
	if err != nil {
		return 0, nil, fmt.Errorf("KVM_GET_VCPU_MMAP_SIZE: %w", err)
	}
	if run, err = unix.Mmap(vcpu, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return 0, nil, fmt.Errorf("map the CPU: %w", err)
	}
	return vcpu, run, setCPU(kvm, vcpu)
}

// setCPU puts the CPU into 64-bit mode at the code's start.
func setCPU(kvm, vcpu int) error {
	cpuid := &kvmCPUID{n: maxCPUIDEntries}
	if _, err := ioctl(kvm, kvmGetSupportedCPU, uintptr(unsafe.Pointer(cpuid))); err != nil {
		return fmt.Errorf("KVM_GET_SUPPORTED_CPUID: %w", err)
	}
	if _, err := ioctl(vcpu, kvmSetCPUID2, uintptr(unsafe.Pointer(cpuid))); err != nil {
		return fmt.Errorf("KVM_SET_CPUID2: %w", err)
	}
	var s kvmSregs
	if _, err := ioctl(vcpu, kvmGetSregs, uintptr(unsafe.Pointer(&s))); err != nil {
		return fmt.Errorf("KVM_GET_SREGS: %w", err)
	}
	s.cs = kvmSegment{limit: 0xffffffff, selector: 0x08, kind: 11, present: 1, s: 1, l: 1, g: 1}
	data := kvmSegment{limit: 0xffffffff, selector: 0x10, kind: 3, present: 1, s: 1, db: 1, g: 1}
	s.ds, s.es, s.fs, s.gs, s.ss = data, data, data, data, data
	// Intel refuses to enter 64-bit mode without a busy task register.
	s.tr = kvmSegment{base: tssAt, limit: 0x67, selector: 0x28, kind: 11, present: 1}
	s.ldt = kvmSegment{unused_: 1}
	s.gdt = kvmTable{base: gdtAt, limit: 0x37}
	s.cr0 = 0x80050033
	s.cr3 = pml4At
	s.cr4 = 0x620 // PAE, and without OSFXSR and OSXMMEXCPT SSE faults everywhere
	s.efer = 0x501
	if _, err := ioctl(vcpu, kvmSetSregs, uintptr(unsafe.Pointer(&s))); err != nil {
		return fmt.Errorf("KVM_SET_SREGS: %w", err)
	}
	r := kvmRegs{rsp: stackAt, rip: codeAt, flag: 2}
	if _, err := ioctl(vcpu, kvmSetRegs, uintptr(unsafe.Pointer(&r))); err != nil {
		return fmt.Errorf("KVM_SET_REGS: %w", err)
	}
	return nil
}

// fillMemory writes code, page tables and descriptor tables.
func fillMemory(mem []byte) {
	put := func(at int, v uint64) { binary.LittleEndian.PutUint64(mem[at:], v) }
	for off, code := range probeCode {
		copy(mem[codeAt+off:], code)
	}
	const present = 7 // and writable, and for ring 3
	put(pml4At, pdptAt|present)
	put(pdptAt, pdAt|present)
	put(pdAt, 0x80|present) // one large page

	for i, d := range []uint64{
		0,
		0x00af9b000000ffff, // 0x08 code
		0x00cf93000000ffff, // 0x10 data
		0x00affb000000ffff, // 0x18 code for ring 3
		0x00cff3000000ffff, // 0x20 data for ring 3
		0x0000890000000067 | tssAt<<16,
		0,
	} {
		put(gdtAt+8*i, d)
	}
	for vector, off := range map[int]uint64{3: 0x180, 14: 0x1a0} {
		to := uint64(codeAt + off)
		put(idtAt+16*vector, to&0xffff|0x08<<16|0x8e00<<32|to>>16<<48)
	}
	put(tssAt+4, stackAt)
	// The operands of LGDT and LIDT: limit, then base.
	put(0x5f00, 0x37|gdtAt<<16)
	put(0x5f10, 15*16-1|idtAt<<16)
	// FXSAVE stores its image at 0x9000; this is beyond it: 21 + 21 is 42.
	binary.LittleEndian.PutUint32(mem[sseAt:], 21)
}
