package cage

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// newRoot makes the tree the whole file system of the process: an empty
// tmpfs, the files bound into it read-only, the old root gone.
func newRoot(tree []entry) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	at := mountPoint(tree)
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("tmpfs", at, "tmpfs", flags, "size=1m,mode=755"); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	for _, e := range tree {
		if err := place(at, e); err != nil {
			return fmt.Errorf("place %s: %w", e.Path, err)
		}
	}
	if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOEXEC|flags, ""); err != nil {
		return fmt.Errorf("make the root read-only: %w", err)
	}
	if err := unix.Chdir(at); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	return unix.Chdir("/")
}

// mountPoint is a directory that exists everywhere and hides no file of the
// tree while the root is built over it.
func mountPoint(tree []entry) string {
	for _, dir := range []string{"/mnt", "/srv", "/opt"} {
		hides := false
		for _, e := range tree {
			hides = hides || strings.HasPrefix(e.Source, dir+"/")
		}
		if st, err := os.Stat(dir); err == nil && st.IsDir() && !hides {
			return dir
		}
	}
	return "/proc"
}

func place(root string, e entry) error {
	to := filepath.Join(root, e.Path)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if e.Kind == kindLink {
		return os.Symlink(e.Source, to)
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	if err := unix.Mount(e.Source, to, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	// In a user namespace the restrictions of the host's mount are locked: a
	// remount that forgot one would fail.
	var st unix.Statfs_t
	if err := unix.Statfs(to, &st); err != nil {
		return err
	}
	flags := uintptr(st.Flags) & (unix.MS_NOEXEC | unix.MS_NODEV)
	flags |= unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID
	if e.Kind == kindDevice {
		flags |= unix.MS_NOEXEC
	} else {
		flags |= unix.MS_NODEV
	}
	return unix.Mount("", to, "", flags, "")
}
