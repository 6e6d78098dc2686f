// Package kvm runs Cutout with KVM inside an emulated machine that has AMD's
// virtualisation, so that the KVM path is tested where there is no KVM.
package kvm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/debian"
	"github.com/cutoutdev/cutout/internal/guest"
	"github.com/cutoutdev/cutout/internal/image"
	"github.com/cutoutdev/cutout/internal/state"
	"github.com/cutoutdev/cutout/internal/vm"
	"github.com/cutoutdev/cutout/internal/vm/cage"
	"github.com/cutoutdev/cutout/internal/vm/kernel"
	"github.com/cutoutdev/cutout/internal/vm/qemu"
	"github.com/cutoutdev/cutout/internal/vm/vmtest"
)

func TestMain(m *testing.M) {
	qemu.Main()
	code := m.Run()
	vmtest.Cleanup()
	os.Exit(code)
}

// TestKVM takes many minutes: everything in it is emulated twice.
func TestKVM(t *testing.T) {
	if os.Getenv("CUTOUT_TEST_KVM") == "" {
		t.Skip("skipped: takes many minutes; set CUTOUT_TEST_KVM=1 or run make test-kvm")
	}
	vmtest.QEMU(t)
	cutout := os.Getenv("CUTOUT")
	if cutout == "" {
		t.Fatal("CUTOUT does not name the program under test")
	}
	k := vmtest.Kernel(t)
	client := outer(t, k, rootfs(t, k, cutout))

	const home = "/cutout/home"
	mods := strings.Fields(read(t, "mods"))
	run(t, client, 2*time.Minute, append([]string{"/cutout/inner", "load"}, mods...)...)
	run(t, client, 2*time.Minute, "/cutout/inner", "probe")
	run(t, client, 15*time.Minute, "/cutout/inner", "boot", home+"/kernel/vmlinux", "/cutout/initrd")
	run(t, client, 20*time.Minute, "/cutout/inner", "run", "/cutout/cutout", "/cutout/client")
}

// scratch is where rootfs builds, and where it leaves the list of modules.
var scratch string

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(scratch, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// rootfs builds the machine's disk: QEMU as it is on this host, Cutout with
// its kernel, KVM's modules, and the test's own program.
func rootfs(t *testing.T, k *kernel.Installed, cutout string) string {
	t.Helper()
	scratch = t.TempDir()
	root := filepath.Join(scratch, "root")
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp", "root", "mnt", "etc", "cutout/mods", "cutout/client", "cutout/home/kernel/modules"} {
		must(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	must(t, os.Chmod(filepath.Join(root, "cutout/home"), 0o700))
	must(t, os.Chmod(filepath.Join(root, "tmp"), 0o777))
	must(t, os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "etc/group"), []byte("root:x:0:\nkvm:x:106:\n"), 0o644))

	q, err := qemu.Find("")
	must(t, err)
	interp, libs, err := cage.Libraries(append([]string{q.Binary}, q.Plugins...)...)
	must(t, err)
	for _, f := range append(append(append(libs, interp, q.Binary), q.Plugins...), q.Files...) {
		put(t, root, f, f)
	}
	put(t, root, "/cutout/cutout", cutout)
	put(t, root, "/cutout/cutout-agent", agent(cutout))
	inner := filepath.Join(scratch, "inner")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", inner, "./inner")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the inner program: %v\n%s", err, out)
	}
	put(t, root, "/cutout/inner", inner)
	put(t, root, "/cutout/client/inner", inner)
	put(t, root, "/cutout/initrd", vmtest.Initramfs(t, k, "../../internal/vm/vmtest/testdata/guest"))
	dir := filepath.Dir(k.Vmlinux)
	put(t, root, "/cutout/home/kernel/order", filepath.Join(dir, "order"))
	for _, f := range append([]string{k.Vmlinux}, k.Modules...) {
		put(t, root, "/cutout/home/kernel"+strings.TrimPrefix(f, dir), f)
	}
	putModules(t, root)
	disk, err := os.Create(filepath.Join(scratch, "disk"))
	must(t, err)
	defer disk.Close()
	must(t, image.WriteDir(t.Context(), disk, root, image.Limits{}, nil))
	return disk.Name()
}

// putModules finds KVM's modules in the package that setup took the kernel
// from.
func putModules(t *testing.T, root string) {
	t.Helper()
	dir := os.Getenv("CUTOUT_TEST_MODULES")
	if dir == "" {
		home, err := state.Default()
		must(t, err)
		pkg, err := debian.Kernel(t.Context(), filepath.Join(home.Cache(), "debian"), nil)
		must(t, err)
		dir = pkg.Modules
	}
	mods, err := kernel.Resolve(dir, []string{"kvm_amd"})
	must(t, err)
	var names []string
	for _, m := range mods {
		name := "/cutout/mods/" + m.Name + ".ko"
		names = append(names, name)
		must(t, os.WriteFile(filepath.Join(root, name), m.Data, 0o644))
	}
	must(t, os.WriteFile(filepath.Join(scratch, "mods"), []byte(strings.Join(names, "\n")), 0o644))
}

// outer boots the machine with SVM and returns its agent's client.
func outer(t *testing.T, k *kernel.Installed, disk string) *guest.Client {
	t.Helper()
	f, err := os.Open(disk)
	must(t, err)
	defer f.Close()
	initrd := filepath.Join(scratch, "initrd")
	w, err := os.Create(initrd)
	must(t, err)
	must(t, kernel.Initramfs(w, agent(os.Getenv("CUTOUT")), k.Modules))
	must(t, w.Close())
	for d := scratch; d != os.TempDir() && len(d) > 1; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	var client *guest.Client
	m, err := qemu.Boot(t.Context(), vm.Spec{
		Kernel: k.Vmlinux, Initrd: initrd, MemoryMiB: 2048, Nested: true,
		Disks:  []vm.Disk{{File: f, Serial: "root"}},
		Notice: func(s string) { t.Log("notice:", s) },
	}, func(ctx context.Context, c net.Conn) error {
		client, err = guest.Connect(ctx, c)
		return err
	})
	must(t, err)
	t.Cleanup(m.Kill)
	must(t, client.Configure(t.Context(), guest.Config{Hostname: "outer", Time: time.Now(), RootSerial: "root"}))
	return client
}

// run runs a command in the machine and logs what it says as it says it.
func run(t *testing.T, c *guest.Client, limit time.Duration, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	p, err := c.Start(ctx, guest.Command{Args: args, Env: []string{"CUTOUT_HOME=/cutout/home", "HOME=/root", "PATH=/usr/bin"}})
	must(t, err)
	p.Stdin.Close()
	start := time.Now()
	var logs sync.WaitGroup
	logs.Go(func() { logLines(p.Stdout, start) })
	logs.Go(func() { logLines(p.Stderr, start) })
	exit, err := p.Wait(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%s did not end within %v", strings.Join(args[:2], " "), limit)
	}
	must(t, err)
	logs.Wait()
	if exit.Code != 0 {
		t.Fatalf("%s: exit status %d", strings.Join(args, " "), exit.Code)
	}
}

// logLines prints lines as they come: of a test that hangs the log is what
// matters.
func logLines(r io.Reader, start time.Time) {
	for in := bufio.NewScanner(r); in.Scan(); {
		fmt.Printf("    %6.1f  %s\n", time.Since(start).Seconds(), in.Text())
	}
}

func agent(cutout string) string { return filepath.Join(filepath.Dir(cutout), "cutout-agent") }

// put copies a file of the host into the tree.
func put(t *testing.T, root, name, from string) {
	t.Helper()
	to := filepath.Join(root, name)
	must(t, os.MkdirAll(filepath.Dir(to), 0o755))
	data, err := os.ReadFile(from)
	must(t, err)
	st, err := os.Stat(from)
	must(t, err)
	must(t, os.WriteFile(to, data, st.Mode().Perm()))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
