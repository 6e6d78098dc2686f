package debian

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// A KernelPackage is a kernel as the distribution built it.
type KernelPackage struct {
	Vmlinuz string // path of the compressed kernel (bzImage)
	Modules string // path of lib/modules/VERSION
	Version string // as uname -r prints it
}

// kernels are the packages that depend on the newest kernel for virtual
// machines, or else the general one: of Debian, then of Ubuntu.
var kernels = []string{"linux-image-cloud-amd64", "linux-image-virtual", "linux-image-amd64", "linux-image-generic"}

// Kernel downloads the distribution's kernel for virtual machines and unpacks
// it below workdir, unless it is there already.
func Kernel(ctx context.Context, workdir string, progress Progress) (KernelPackage, error) {
	a, err := Open(ctx, filepath.Join(workdir, "apt"))
	if err != nil {
		return KernelPackage{}, err
	}
	defer a.Close()
	k, err := a.kernel(ctx, workdir, progress)
	if err != nil {
		return KernelPackage{}, fmt.Errorf("get kernel: %w", err)
	}
	return k, nil
}

func (a *Apt) kernel(ctx context.Context, workdir string, progress Progress) (KernelPackage, error) {
	var first error
	for _, name := range kernels {
		list, err := a.Resolve(ctx, []string{name}, progress)
		if err != nil {
			if first == nil {
				first = err
			}
			if errors.Is(err, ErrUnavailable) {
				continue
			}
			return KernelPackage{}, err
		}
		version, debs := kernelPackages(list)
		if version == "" {
			continue
		}
		return a.unpackKernel(ctx, workdir, version, debs, progress)
	}
	return KernelPackage{}, first
}

// kernelPackages picks the archives that hold a kernel and its modules.
func kernelPackages(list []Package) (version string, debs []Package) {
	for _, p := range list {
		v, ok := strings.CutPrefix(p.Name, "linux-image-unsigned-")
		if !ok {
			v, ok = strings.CutPrefix(p.Name, "linux-image-")
		}
		if ok && v[0] >= '0' && v[0] <= '9' {
			version, debs = v, append(debs, p)
		}
	}
	for _, p := range list {
		if version != "" && (p.Name == "linux-modules-"+version || p.Name == "linux-modules-extra-"+version) {
			debs = append(debs, p)
		}
	}
	return version, debs
}

// unpackKernel unpacks into a directory that only a whole kernel has.
func (a *Apt) unpackKernel(ctx context.Context, workdir, version string, debs []Package, progress Progress) (KernelPackage, error) {
	dir := filepath.Join(workdir, "kernel-"+version+"_"+strings.ReplaceAll(debs[0].Version, ":", "%3a"))
	k := KernelPackage{
		Vmlinuz: filepath.Join(dir, "vmlinuz"), Version: version,
		Modules: filepath.Join(dir, "lib/modules", version),
	}
	if _, err := os.Stat(dir); err == nil {
		return k, nil
	}
	if err := a.downloadOnly(ctx, debs, progress); err != nil {
		return k, err
	}
	tmp, err := os.MkdirTemp(workdir, "kernel-tmp-")
	if err != nil {
		return k, fmt.Errorf("unpack kernel: %w", err)
	}
	defer os.RemoveAll(tmp)
	root, err := os.OpenRoot(tmp)
	if err != nil {
		return k, fmt.Errorf("unpack kernel: %w", err)
	}
	defer root.Close()
	for i, p := range debs {
		report(progress, StageUnpack, int64(i), int64(len(debs)))
		if err := a.files(ctx, p.Path, func(h *tar.Header, r io.Reader) error {
			return keepKernelFile(root, version, h, r)
		}); err != nil {
			return k, fmt.Errorf("unpack kernel: %w", err)
		}
	}
	for _, f := range []string{"vmlinuz", "lib/modules/" + version} {
		if _, err := root.Stat(f); err != nil {
			return k, fmt.Errorf("unpack kernel: the package has no %s", path.Base(f))
		}
	}
	if err := os.Rename(tmp, dir); err != nil {
		return k, fmt.Errorf("unpack kernel: %w", err)
	}
	report(progress, StageUnpack, int64(len(debs)), int64(len(debs)))
	return k, nil
}

// keepKernelFile writes the entry if it is the kernel or one of its modules.
func keepKernelFile(root *os.Root, version string, h *tar.Header, r io.Reader) error {
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	name := strings.TrimPrefix(strings.TrimPrefix(path.Clean("/"+h.Name), "/"), "usr/")
	modules := "lib/modules/" + version + "/"
	switch {
	case name == "boot/vmlinuz-"+version, name == modules+"vmlinuz":
		name = "vmlinuz"
	case !strings.HasPrefix(name, modules):
		return nil
	}
	if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
