// Package kernel prepares what a guest boots: it unpacks a distribution's
// kernel to the ELF image that QEMU enters directly (PVH), picks the modules
// that the guest needs in the order in which they load, and writes the
// initramfs that carries them and the agent.
//
// It accepts any x86-64 Linux bzImage that is built with CONFIG_PVH and ext4,
// and whose modules, if they are not built in, lie in a /lib/modules/RELEASE
// tree: Debian's linux-image-cloud-amd64 and linux-image-amd64, and the kernel
// of a Debian, Ubuntu or Fedora host in /boot. Kernels are public; a kernel
// file that is malformed gives an error, never a panic.
package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Modules are what a guest needs beyond a kernel with ext4 built in, by module
// name, in an order in which they load. Their dependencies are found.
var Modules = []string{
	"virtio_mmio", "virtio_blk", "virtio_console", "virtio_net", "virtio_rng", "overlay", "ext4",
}

// optional modules may be missing both as a file and as a built-in.
var optional = map[string]bool{"virtio_rng": true}

// ErrNotInstalled means that a directory holds no kernel.
var ErrNotInstalled = errors.New("no guest kernel is installed")

// An Installed kernel, ready to boot.
type Installed struct {
	Vmlinux string   // path of the ELF image
	Release string   // such as 6.1.0-56-cloud-amd64
	Modules []string // paths of the module files, in load order
}

// Install unpacks the bzImage or ELF file vmlinuz to dst/vmlinux and copies
// the needed modules of modulesDir (a /lib/modules/RELEASE) to dst/modules,
// decompressed. It replaces what dst held; an interrupted Install leaves a dst
// that Open refuses.
func Install(dst, vmlinuz, modulesDir string) (*Installed, error) {
	packed, err := os.ReadFile(vmlinuz)
	if err != nil {
		return nil, fmt.Errorf("read kernel: %w", err)
	}
	image, err := Unpack(packed)
	if err != nil {
		return nil, fmt.Errorf("unpack kernel %s: %w", vmlinuz, err)
	}
	mods, err := Resolve(modulesDir, Modules)
	if err != nil {
		return nil, err
	}
	release := filepath.Base(modulesDir)
	if v := Release(packed); v != "" && v != release {
		return nil, fmt.Errorf("kernel %s is release %s, its modules are of %s", vmlinuz, v, release)
	}
	return install(dst, image, release, mods)
}

func install(dst string, image []byte, release string, mods []Module) (*Installed, error) {
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return nil, err
	}
	order := filepath.Join(dst, "order")
	if err := os.Remove(order); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	dir := filepath.Join(dst, "modules")
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dst, "vmlinux"), image, 0o644); err != nil {
		return nil, err
	}
	lines := release + "\n"
	for _, m := range mods {
		if err := os.WriteFile(filepath.Join(dir, m.Name+".ko"), m.Data, 0o644); err != nil {
			return nil, err
		}
		lines += m.Name + "\n"
	}
	// Written last, in one step: it makes the directory a kernel.
	tmp := order + ".new"
	if err := os.WriteFile(tmp, []byte(lines), 0o644); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, order); err != nil {
		return nil, err
	}
	return Open(dst)
}

// Open finds the kernel that Install left in dir.
func Open(dir string) (*Installed, error) {
	text, err := os.ReadFile(filepath.Join(dir, "order"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s", ErrNotInstalled, dir)
	}
	if err != nil {
		return nil, err
	}
	lines := strings.Fields(string(text))
	if len(lines) == 0 {
		return nil, fmt.Errorf("%w in %s", ErrNotInstalled, dir)
	}
	k := &Installed{Vmlinux: filepath.Join(dir, "vmlinux"), Release: lines[0]}
	for _, name := range lines[1:] {
		k.Modules = append(k.Modules, filepath.Join(dir, "modules", name+".ko"))
	}
	for _, f := range append([]string{k.Vmlinux}, k.Modules...) {
		if _, err := os.Stat(f); err != nil {
			return nil, fmt.Errorf("the installed kernel is incomplete: %w", err)
		}
	}
	return k, nil
}
