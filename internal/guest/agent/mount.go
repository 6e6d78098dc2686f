package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cutoutdev/cutout/internal/guest/wire"
	"golang.org/x/sys/unix"
)

// A mount is one call of mount(2).
type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func (m mount) do() error {
	if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s: %w", m.target, err)
	}
	return nil
}

const nosuid = unix.MS_NOSUID | unix.MS_NOEXEC

// mountKernel mounts the kernel's file systems where they are needed first.
func mountKernel() error {
	for _, m := range []mount{
		{"proc", "/proc", "proc", nosuid | unix.MS_NODEV, ""},
		{"sysfs", "/sys", "sysfs", nosuid | unix.MS_NODEV, ""},
		{"devtmpfs", "/dev", "devtmpfs", nosuid, "mode=0755"},
	} {
		os.Mkdir(m.target, 0o755)
		if err := m.do(); err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	writeKernel("/proc/sys/kernel/panic", "-1") // should we fall, the machine exits
	// Drivers, mounts and network wait for RCU a dozen times each, for ticks
	// on end. Up to here the kernel did not, and neither need we.
	writeKernel("/sys/kernel/rcu_expedited", "1")
	return nil
}

// mountRoot makes the image the root: read-only below, with a tmpfs that takes
// all writes above.
func (m *machine) mountRoot(serial string) error {
	disk, err := m.disk(serial)
	if err != nil {
		return err
	}
	// A read takes an emulated disk as long as eight times its default length.
	writeKernel("/sys/block/"+filepath.Base(disk)+"/queue/read_ahead_kb", "1024")
	for _, dir := range []string{"/lower", "/rw", "/root"} {
		os.Mkdir(dir, 0o755)
	}
	if err := (mount{disk, "/lower", "ext4", unix.MS_RDONLY, "noload"}).do(); err != nil {
		return err
	}
	// Three quarters, where tmpfs would take half: the rest is for programs.
	if err := (mount{"upper", "/rw", "tmpfs", 0, "mode=0755,size=75%,nr_inodes=0"}).do(); err != nil {
		return err
	}
	os.Mkdir("/rw/upper", 0o755)
	os.Mkdir("/rw/work", 0o755)
	// redirect_dir lets a directory of the image be renamed, which package
	// managers expect of a file system.
	if err := (mount{"root", "/root", "overlay", 0, "lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work,redirect_dir=on"}).do(); err != nil {
		return err
	}
	if m.upperFD, err = unix.Open("/rw", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return os.NewSyscallError("open the upper directory", err)
	}
	return enterRoot()
}

// enterRoot makes /root the root of this process and its children.
func enterRoot() error {
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		target := "/root" + dir
		if fi, err := os.Lstat(target); err == nil && !fi.IsDir() {
			os.Remove(target) // a link of the image
		}
		os.Mkdir(target, 0o755)
		if err := unix.Mount(dir, target, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	if err := os.Chdir("/root"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return os.NewSyscallError("move the root", err)
	}
	if err := unix.Chroot("."); err != nil {
		return os.NewSyscallError("change the root", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return mountRest()
}

func mountRest() error {
	for _, m := range []mount{
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666"},
		{"shm", "/dev/shm", "tmpfs", nosuid | unix.MS_NODEV, "mode=1777"},
		{"mqueue", "/dev/mqueue", "mqueue", nosuid | unix.MS_NODEV, ""},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", nosuid | unix.MS_NODEV, ""},
	} {
		if strings.HasPrefix(m.target, "/dev/") {
			os.Mkdir(m.target, 0o755)
		}
		err := m.do()
		if errors.Is(err, unix.ENODEV) || errors.Is(err, fs.ErrNotExist) {
			continue // not in this kernel
		}
		if err != nil {
			return err
		}
	}
	for name, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1",
		"/dev/stderr": "/proc/self/fd/2", "/dev/core": "/proc/kcore",
	} {
		os.Symlink(target, name)
	}
	return nil
}

// mountVolume mounts a disk below the new root. In there, links of the image
// lead only to places in the image.
func mountVolume(v wire.Volume) error {
	if !filepath.IsAbs(v.Path) {
		return fmt.Errorf("mount a volume: %s is not absolute", v.Path)
	}
	disk, err := findDisk(v.Serial)
	if err != nil {
		return err
	}
	path := filepath.Clean(v.Path)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("mount a volume: %w", err)
	}
	return mount{disk, path, "ext4", unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV, "noload"}.do()
}

// disk finds the root disk and, if it is not there, tells what may be why.
func (m *machine) disk(serial string) (string, error) {
	disk, err := findDisk(serial)
	if err != nil && len(m.failed) > 0 {
		err = fmt.Errorf("%w (modules not loaded: %s)", err, strings.Join(m.failed, ", "))
	}
	return disk, err
}

// findDisk finds a disk by the serial that the host has given it. Disks are
// there when their driver is loaded; the wait is for a driver that is slow.
func findDisk(serial string) (string, error) {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		for letter := 'a'; letter <= 'z'; letter++ {
			name := "vd" + string(letter)
			got, err := readKernel("/sys/block/" + name + "/serial")
			if err != nil {
				break
			}
			if got == serial {
				return "/dev/" + name, nil
			}
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("no disk with serial %s", serial)
		}
	}
}
