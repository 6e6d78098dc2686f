package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/config"
	"github.com/cutoutdev/cutout/internal/debian"
	"github.com/cutoutdev/cutout/internal/image"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/source/helper"
	"github.com/cutoutdev/cutout/internal/state"
	"github.com/cutoutdev/cutout/internal/term"
	"github.com/cutoutdev/cutout/internal/vm/kernel"
	"github.com/cutoutdev/cutout/internal/vm/qemu"
)

// pulledDefault stands in for the default image where there is no apt.
const pulledDefault = "docker.io/library/python:3"

type setupOptions struct {
	kernel, modules string
	again           bool
}

func (a *app) setupCommand() *cobra.Command {
	var o setupOptions
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Prepare this machine: QEMU, a guest kernel and the default image",
		Long: `Setup prepares what every sandbox needs, once; what is there already is left
alone. It says what it does.

  QEMU     installed with apt-get when you are root, else you are told how
  kernel   the distribution's kernel for virtual machines, through apt's
           mirrors and keys but without touching the packages of this machine;
           or --kernel with --modules; or this machine's own
  image    the image "default": a minimal Debian with curl, python3, git,
           openssl and ca-certificates; where there is no apt, ` + pulledDefault + `
  snapshot a machine with that image that has booted, from which run starts
           sandboxes; run makes those of other images and machines by itself

Exit status: 0, 1 when something is still missing, 2 when the command line is
wrong.`,
		Example: `  cutout setup
  cutout setup --kernel /boot/vmlinuz-6.12.0 --modules /lib/modules/6.12.0`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (o.kernel == "") != (o.modules == "") {
				return usageError{errors.New("--kernel and --modules belong together")}
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			defer a.out.Progress("", 0, 0)
			return a.setup(ctx, o)
		},
	}
	cmd.Flags().StringVar(&o.kernel, "kernel", "", "compressed kernel `file` (bzImage) or vmlinux to use")
	cmd.Flags().StringVar(&o.modules, "modules", "", "its modules, the `directory` lib/modules/RELEASE")
	cmd.Flags().BoolVar(&o.again, "again", false, "make kernel and image anew")
	return cmd
}

func (a *app) setup(ctx context.Context, o setupOptions) error {
	home, err := state.Default()
	if err != nil {
		return err
	}
	if err := a.setupQEMU(ctx); err != nil {
		return err
	}
	if err := a.setupKernel(ctx, home, o); err != nil {
		return err
	}
	img, err := a.setupImage(ctx, home, o.again)
	if err != nil {
		return err
	}
	if err := a.setupSnapshot(ctx, home, img); err != nil {
		return err
	}
	a.done("ready", "try: cutout run -- uname -a")
	return nil
}

// done prints one line of setup's account.
func (a *app) done(what, detail string) { a.out.Printf("%-8s %s", what, term.Escape(detail)) }

// qemuPackage is Debian's package with the monitor.
const qemuPackage = "qemu-system-x86"

func (a *app) setupQEMU(ctx context.Context) error {
	q, missing := qemu.Find("")
	if missing == nil {
		a.done("QEMU", q.Binary)
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return term.WithHint(missing, "install QEMU 7.2 or later for x86-64, then run cutout setup again")
	}
	if os.Geteuid() != 0 {
		return term.WithHint(missing, "run: sudo apt-get install --no-install-recommends %s", qemuPackage)
	}
	a.done("QEMU", "installing the package "+qemuPackage)
	for _, args := range [][]string{{"update", "-q"}, {"install", "-q", "-y", "--no-install-recommends", qemuPackage}} {
		if err := a.aptGet(ctx, args); err != nil {
			return term.WithHint(err, "install %s yourself, then run cutout setup again", qemuPackage)
		}
	}
	if q, missing = qemu.Find(""); missing != nil {
		return missing
	}
	a.done("QEMU", q.Binary)
	return nil
}

// aptGet runs apt-get and shows what it says only if it fails.
func (a *app) aptGet(ctx context.Context, args []string) error {
	defer a.out.Stage("apt-get " + args[0])()
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	said, err := cmd.CombinedOutput()
	if err != nil {
		a.out.Printf("%s", escapeLines(string(said)))
		return fmt.Errorf("apt-get %s: %w", args[0], err)
	}
	return nil
}

func escapeLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = term.Escape(line)
	}
	return strings.Join(lines, "\n")
}

func (a *app) setupKernel(ctx context.Context, home state.Home, o setupOptions) error {
	k, err := kernel.Open(home.Kernel())
	if err != nil || o.again || o.kernel != "" {
		if k, err = a.installKernel(ctx, home, o); err != nil {
			return err
		}
		for _, name := range initramfses(home) {
			os.Remove(name)
		}
	}
	if _, err := ensureInitramfs(home, k); err != nil {
		return err
	}
	a.done("kernel", k.Release)
	return nil
}

func (a *app) installKernel(ctx context.Context, home state.Home, o setupOptions) (*kernel.Installed, error) {
	if o.kernel != "" {
		return kernel.Install(home.Kernel(), o.kernel, o.modules)
	}
	work := home.Downloads()
	pkg, err := debian.Kernel(ctx, work, a.out.Progress)
	if err == nil {
		defer a.out.Stage("unpacking the kernel")()
		return kernel.Install(home.Kernel(), pkg.Vmlinuz, pkg.Modules)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	k, own := installHostKernel(home)
	if own != nil {
		err = fmt.Errorf("no kernel from the distribution (%w), and this machine's own does not do: %w", err, own)
		return nil, term.WithHint(err, "name a kernel with --kernel and --modules")
	}
	a.out.Printf("cutout: no kernel from the distribution (%s); using this machine's", term.Escape(err.Error()))
	return k, nil
}

// installHostKernel takes the kernel that runs this machine.
func installHostKernel(home state.Home) (*kernel.Installed, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, err
	}
	release := unix.ByteSliceToString(u.Release[:])
	return kernel.Install(home.Kernel(), "/boot/vmlinuz-"+release, "/lib/modules/"+release)
}

func (a *app) setupImage(ctx context.Context, home state.Home, again bool) (image.Image, error) {
	store := &image.Store{Dir: home.Images()}
	img, err := lookupDefault(ctx, store, a.out.Progress)
	if err != nil || again {
		if img, err = a.makeDefaultImage(ctx, home, store); err != nil {
			return img, err
		}
	}
	a.done("image", fmt.Sprintf("%s, %s", img.Name, term.Bytes(img.Size)))
	return img, nil
}

// setupSnapshot starts a sandbox of the default kind with nothing to do, which
// makes the snapshot unless it is there. That it cannot is doctor's to
// tell, and run does without.
func (a *app) setupSnapshot(ctx context.Context, home state.Home, img image.Image) error {
	stage := a.out.Stage("booting a machine")
	err := startIdle(ctx, home, img)
	stage()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		a.done("snapshot", "none, since a sandbox does not start: "+err.Error())
	default:
		a.done("snapshot", snapshotDetail(home))
	}
	return nil
}

// startIdle starts a sandbox and ends it.
func startIdle(ctx context.Context, home state.Home, img image.Image) error {
	values := new(helper.Client) // of which there are none
	defer values.Close()
	spec, err := config.Run{}.Build(ctx, os.LookupEnv, values)
	if err != nil {
		return err
	}
	if spec.Machine.Kernel, spec.Machine.Initrd, err = guestMachine(home); err != nil {
		return err
	}
	spec.Machine.Disk, spec.Machine.Snapshots = img.Disk, home.Snapshots()
	place, err := home.New()
	if err != nil {
		return err
	}
	defer place.Remove()
	spec.ID, spec.Guest.Hostname = place.ID, place.ID
	spec.Dirs = keeper.Dirs{Runtime: place.Runtime, State: place.Dir}
	sandbox, err := keeper.Start(ctx, spec, keeper.Files{}, nil)
	if err != nil {
		return err
	}
	sandbox.End()
	return nil
}

// lookupDefault returns the default image, or what stands in for it.
func lookupDefault(ctx context.Context, store *image.Store, progress image.Progress) (image.Image, error) {
	img, err := store.Lookup(ctx, defaultImage, progress)
	if errors.Is(err, image.ErrNotFound) {
		if pulled, perr := store.Lookup(ctx, pulledDefault, progress); !errors.Is(perr, image.ErrNotFound) {
			return pulled, perr
		}
	}
	return img, err
}

func (a *app) makeDefaultImage(ctx context.Context, home state.Home, store *image.Store) (image.Image, error) {
	work := home.Downloads()
	if err := os.MkdirAll(work, 0o700); err != nil {
		return image.Image{}, fmt.Errorf("make image: %w", err)
	}
	f, err := state.CreateTemp(work)
	if err != nil {
		return image.Image{}, fmt.Errorf("make image: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	err = debian.Rootfs(ctx, work, nil, f, a.out.Progress)
	if errors.Is(err, debian.ErrNoApt) {
		img, err := store.Pull(ctx, pulledDefault, a.out.Progress)
		return img, imageHint(err, pulledDefault)
	}
	if err != nil {
		return image.Image{}, fmt.Errorf("make image: %w", err)
	}
	if err := f.Close(); err != nil {
		return image.Image{}, fmt.Errorf("make image: %w", err)
	}
	img, err := store.Import(ctx, defaultImage, f.Name(), a.out.Progress)
	return img, imageHint(err, defaultImage)
}
