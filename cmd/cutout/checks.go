package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/config"
	"github.com/cutoutdev/cutout/internal/image"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/state"
	"github.com/cutoutdev/cutout/internal/term"
	"github.com/cutoutdev/cutout/internal/vm"
	"github.com/cutoutdev/cutout/internal/vm/cage"
	"github.com/cutoutdev/cutout/internal/vm/kernel"
	"github.com/cutoutdev/cutout/internal/vm/qemu"
	"github.com/cutoutdev/cutout/internal/vm/snapshot"
)

// failed is a check that found err, which may carry its own hint.
func failed(name string, err error) check {
	return check{Name: name, Status: statusMissing, Detail: err.Error(), Hint: hintOf(err)}
}

// lowSpace is when an image will hardly fit any more.
const lowSpace = 2 << 30

func checkState(home state.Home, err error) check {
	if err != nil {
		return failed("state", err)
	}
	c := check{Name: "state", Status: statusOK, Detail: home.Data}
	var fs unix.Statfs_t
	if unix.Statfs(home.Data, &fs) == nil {
		free := int64(fs.Bavail) * int64(fs.Bsize)
		c.Detail += ", " + term.Bytes(free) + " free"
		if free < lowSpace {
			c.Status, c.Hint = statusWeak, "free some space: images and audit logs need it"
		}
	}
	return c
}

func checkQEMU(ctx context.Context) check {
	q, err := qemu.Find("")
	if err != nil {
		return check{"QEMU", statusMissing, err.Error(), "run cutout setup"}
	}
	path := q.Binary
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Env = []string{} // the caller's may hold secrets
	out, err := cmd.Output()
	if err != nil {
		return check{"QEMU", statusMissing, fmt.Sprintf("%s does not run: %v", path, err), "install it anew"}
	}
	line, _, _ := strings.Cut(string(out), "\n")
	c := check{Name: "QEMU", Status: statusOK, Detail: path + ", " + strings.TrimPrefix(line, "QEMU emulator ")}
	machines := exec.CommandContext(ctx, path, "-M", "help")
	machines.Env = []string{}
	if out, err := machines.Output(); err != nil || !bytes.Contains(out, []byte("\nmicrovm ")) {
		return check{"QEMU", statusMissing, c.Detail + ", without the microvm machine", "install QEMU 7.2 or later with it"}
	}
	return c
}

func checkKernel(home state.Home) check {
	k, err := kernel.Open(home.Kernel())
	if errors.Is(err, kernel.ErrNotInstalled) {
		return check{"kernel", statusMissing, "there is no guest kernel", "run cutout setup"}
	}
	if err != nil {
		return check{"kernel", statusMissing, err.Error(), "run cutout setup --again"}
	}
	if _, err := findAgent(); err != nil {
		return failed("kernel", err)
	}
	return check{Name: "kernel", Status: statusOK, Detail: k.Release}
}

// checkDefaultImage finds a missing image weak, not fatal: others can be
// named.
func checkDefaultImage(ctx context.Context, home state.Home) check {
	img, err := lookupDefault(ctx, &image.Store{Dir: home.Images()}, nil)
	switch {
	case errors.Is(err, image.ErrNotFound):
		return check{"image", statusWeak, "there is no default image; run needs an IMAGE", "run cutout setup"}
	case err != nil:
		return check{"image", statusWeak, err.Error(), hintOf(imageHint(err, defaultImage))}
	}
	return check{Name: "image", Status: statusOK, Detail: img.Name + ", " + term.Bytes(img.Size)}
}

// checkSnapshots finds nothing fatal: a sandbox that cannot start from a
// snapshot boots.
func checkSnapshots(home state.Home) check {
	store := snapshot.Store{Dir: home.Snapshots()}
	c := check{Name: "snapshots", Status: statusOK, Detail: snapshotDetail(home)}
	if failures := store.Failures(); len(failures) > 0 {
		c.Status, c.Hint = statusWeak, "sandboxes of that kind boot, and it is tried again in an hour"
		c.Detail += "; failed: " + strings.Join(failures, "; ")
	}
	return c
}

func snapshotDetail(home state.Home) string {
	store := snapshot.Store{Dir: home.Snapshots()}
	all, err := store.List()
	if err != nil {
		return err.Error()
	}
	usable, size := 0, int64(0)
	for _, e := range all {
		if size += e.Size; !e.Stale {
			usable++
		}
	}
	switch usable {
	case 0:
		return "none; the first sandbox of each kind boots"
	case 1:
		return "1, " + term.Bytes(size)
	}
	return fmt.Sprintf("%d, %s", usable, term.Bytes(size))
}

func checkKVM(ctx context.Context) check {
	v := vm.ProbeKVM(ctx)
	took := v.Took.Round(time.Millisecond)
	if v.Usable {
		return check{Name: "KVM", Status: statusOK, Detail: fmt.Sprintf("works: a test machine ran every stage in %v", took)}
	}
	return check{
		"KVM", statusWeak, fmt.Sprintf("not usable: %s (found in %v)", v.Reason, took),
		"machines are emulated: they start in seconds and compute about 20 times slower",
	}
}

func checkCage() check {
	layers, err := cage.Report()
	if err != nil {
		return failed("cage", err)
	}
	if missing := layers.Missing(); len(missing) > 0 {
		return check{
			"cage", statusMissing, "QEMU cannot be confined: no " + strings.Join(missing, ", no "),
			"allow user namespaces or landlock; --weak-cage starts without, and an escape from the guest then reaches your files",
		}
	}
	if weaker := layers.Weaker(); len(weaker) > 0 {
		detail := "the minimum holds; without " + strings.Join(weaker, ", ")
		if layers.Without != "" {
			detail += " (" + layers.Without + ")"
		}
		return check{"cage", statusWeak, detail, "an escape from the guest meets fewer layers"}
	}
	return check{Name: "cage", Status: statusOK, Detail: fmt.Sprintf("namespaces, own root, system call filter, landlock %d", layers.Landlock)}
}

func checkStore() check {
	store, err := secret.NewStore(0)
	if err != nil {
		return check{"values", statusMissing, err.Error(), "raise the limit of locked memory (ulimit -l) to 8 MiB"}
	}
	defer store.Close()
	if kind := store.Kind(); kind != "memfd_secret" {
		return check{
			"values", statusWeak, "kept in locked memory (" + kind + ")",
			"this kernel has no memfd_secret: root can read a keeper's memory",
		}
	}
	return check{Name: "values", Status: statusOK, Detail: "kept in memory that even root cannot read (memfd_secret)"}
}

func checkMemory() check {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return check{Name: "memory", Status: statusOK, Detail: "unknown"}
	}
	var kb int64
	for line := range strings.Lines(string(data)) {
		if n, err := fmt.Sscanf(line, "MemAvailable: %d kB", &kb); n == 1 && err == nil {
			break
		}
	}
	c := check{Name: "memory", Status: statusOK, Detail: term.Bytes(kb<<10) + " available"}
	if kb>>10 < config.DefaultMemoryMiB {
		c.Status, c.Hint = statusWeak, fmt.Sprintf("a guest has %d MiB by default; give less with -m", config.DefaultMemoryMiB)
	}
	return c
}
