// Package qemu runs machines with QEMU's microvm, in a cage.
//
// All channels are inherited descriptors: QEMU opens no socket and listens
// nowhere. What comes back on them is hostile input, since a guest that has
// taken over QEMU writes it: it is bounded, never trusted, and at worst ends
// the machine. A machine dies with the process that started it.
package qemu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/cutoutdev/cutout/internal/vm"
	"github.com/cutoutdev/cutout/internal/vm/cage"
)

// Main takes over the process if it was re-executed as a helper of this
// package, of vm or of cage, and does not return then. Call it first in main
// and in TestMain, before anything is read or started.
func Main() {
	vm.ProbeMain()
	cage.Main()
}

// ControlPort is the name of the virtio-serial port on which the agent talks.
const ControlPort = "cutout"

// Errors that a user can act on. Those of a machine that started and failed
// are an [*ExitError] as well.
var (
	ErrNotFound    = errors.New("qemu is not installed")
	ErrNoFirmware  = errors.New("qemu's microvm firmware (qboot.rom) is not installed")
	ErrNoMemory    = errors.New("the host has not enough memory for the guest")
	ErrGuestReset  = errors.New("the guest reset before its agent answered")
	ErrBootTimeout = errors.New("the guest's agent did not answer in time")
	ErrAccel       = errors.New("the accelerator does not work")
	ErrKernel      = errors.New("qemu cannot load the guest kernel")
	ErrKilled      = errors.New("the machine was killed, as the host does when memory runs out")
)

// An Install is QEMU as found on the host.
type Install struct {
	Binary   string
	Firmware string   // the directory of the firmware files
	Files    []string // firmware files that a machine reads
	Plugins  []string // shared objects that the binary loads by itself
}

// names of the binary for the guests that this host can run.
var names = map[string][]string{
	"amd64": {"qemu-system-x86_64", "qemu-kvm"},
	"arm64": {"qemu-system-aarch64", "qemu-kvm"},
}[runtime.GOARCH]

// The keeper's environment is empty, so that there is no PATH to search.
var (
	binaryDirs   = []string{"/usr/local/bin", "/usr/bin", "/usr/libexec", "/opt/homebrew/bin"}
	firmwareDirs = []string{"share/qemu", "share/qemu-kvm"}
	pluginDirs   = []string{"lib/x86_64-linux-gnu/qemu", "lib/aarch64-linux-gnu/qemu", "lib64/qemu", "lib64/qemu-kvm", "lib/qemu", "lib/qemu-kvm"}
)

// Find looks for QEMU; binary "" means in the usual places.
func Find(binary string) (*Install, error) {
	q := &Install{Binary: binary}
	if binary == "" {
		if q.Binary = findBinary(); q.Binary == "" {
			return nil, fmt.Errorf("%w: no %s in %s", ErrNotFound, names[0], strings.Join(binaryDirs, ", "))
		}
	} else if st, err := os.Stat(binary); err != nil || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a file", ErrNotFound, binary)
	}
	prefix := filepath.Dir(filepath.Dir(q.Binary))
	for _, dir := range firmwareDirs {
		dir = filepath.Join(prefix, dir)
		if isFile(filepath.Join(dir, "qboot.rom")) {
			q.Firmware = dir
			break
		}
	}
	if q.Firmware == "" {
		return nil, fmt.Errorf("%w below %s", ErrNoFirmware, filepath.Join(prefix, "share"))
	}
	for _, name := range []string{"qboot.rom", "pvh.bin", "linuxboot_dma.bin", "kvmvapic.bin"} {
		if f := filepath.Join(q.Firmware, name); isFile(f) {
			q.Files = append(q.Files, f)
		}
	}
	for _, dir := range pluginDirs {
		found, _ := filepath.Glob(filepath.Join(prefix, dir, "accel-tcg-"+machineArch()+".so"))
		q.Plugins = append(q.Plugins, found...)
	}
	return q, nil
}

func findBinary() string {
	for _, dir := range binaryDirs {
		for _, name := range names {
			if p := filepath.Join(dir, name); isFile(p) {
				return p
			}
		}
	}
	return ""
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

func machineArch() string {
	if runtime.GOARCH == "arm64" {
		return "aarch64"
	}
	return "x86_64"
}
