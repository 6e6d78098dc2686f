// Package vmtest gives tests of other packages what a real machine needs: a
// kernel, an initramfs, and the rule that a test which cannot run says why,
// and fails where CI is set.
package vmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cutoutdev/cutout/internal/state"
	"github.com/cutoutdev/cutout/internal/vm/kernel"
	"github.com/cutoutdev/cutout/internal/vm/qemu"
)

// Need fails the test if CI is set and skips it otherwise, saying what is
// missing.
func Need(t testing.TB, format string, args ...any) {
	t.Helper()
	missing := fmt.Sprintf(format, args...)
	if os.Getenv("CI") != "" {
		t.Fatalf("needs %s, and CI is set", missing)
	}
	t.Skipf("skipped: needs %s", missing)
}

// QEMU skips the test where there is no QEMU.
func QEMU(t testing.TB) {
	t.Helper()
	if _, err := qemu.Find(""); err != nil {
		Need(t, "QEMU (%v)", err)
	}
}

var prepared struct {
	sync.Mutex
	kernel *kernel.Installed
	err    error
	dir    string
}

// Kernel returns a guest kernel: the one that `cutout setup` installed (where
// CUTOUT_HOME says), or one of this host's, unpacked once per test binary into a
// directory that Cleanup removes.
func Kernel(t testing.TB) *kernel.Installed {
	t.Helper()
	p := &prepared
	p.Lock()
	defer p.Unlock()
	if p.kernel == nil && p.err == nil {
		p.kernel, p.err = prepare()
	}
	if p.err != nil {
		Need(t, "a guest kernel: run `cutout setup`, or name one by CUTOUT_TEST_KERNEL and CUTOUT_TEST_MODULES (%v)", p.err)
	}
	return p.kernel
}

// Cleanup removes what Kernel has prepared. Call it at the end of TestMain.
func Cleanup() {
	if prepared.dir != "" {
		os.RemoveAll(prepared.dir)
	}
}

func prepare() (*kernel.Installed, error) {
	if home, err := state.Default(); err == nil {
		if k, err := kernel.Open(home.Kernel()); err == nil {
			return k, nil
		}
	}
	image, modules := os.Getenv("CUTOUT_TEST_KERNEL"), os.Getenv("CUTOUT_TEST_MODULES")
	if image == "" {
		found, _ := filepath.Glob("/boot/vmlinuz-*")
		for _, f := range found {
			dir := "/lib/modules/" + filepath.Base(f)[len("vmlinuz-"):]
			if _, err := os.Stat(dir); err == nil {
				image, modules = f, dir
			}
		}
	}
	if image == "" {
		return nil, kernel.ErrNotInstalled
	}
	dir, err := os.MkdirTemp("", "cutout-kernel-")
	if err != nil {
		return nil, err
	}
	// A machine may run under a user id of its own.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	prepared.dir = dir
	return kernel.Install(dir, image, modules)
}

// Initramfs writes an initramfs with the program of package main in dir as
// init and returns its path. dir is relative to the test's directory.
func Initramfs(t testing.TB, k *kernel.Installed, dir string) string {
	t.Helper()
	tmp := t.TempDir()
	open(t, tmp)
	agent := filepath.Join(tmp, "init")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", agent, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the guest's init: %v\n%s", err, out)
	}
	name := filepath.Join(tmp, "initrd")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := kernel.Initramfs(f, agent, k.Modules); err != nil {
		t.Fatal(err)
	}
	return name
}

// open lets every user pass through a test's temporary directory.
func open(t testing.TB, dir string) {
	for ; dir != os.TempDir() && len(dir) > 1; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
