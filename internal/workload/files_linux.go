package workload

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/roots"
)

// files gives the command a view of the host's files. All mounts are in its
// own mount namespace, and whoever makes another from within gets them
// locked.
type files struct {
	cfg      *Config
	uid, gid int
	dir      *os.File // the working directory, as it was before
}

// ownDir is where the files are that exist for the command alone.
const ownDir = "/run/cutout"

// private are directories that the command has of its own: in the host's
// there are sockets of programs that do what their user asks (a session bus,
// a terminal multiplexer, a display, an agent), and the name service's, which
// would resolve past the boundary.
var private = []struct {
	path string
	mode string
}{
	{"/run", "755"},
	{"/var/run", "755"}, // where it is not /run
	{"/tmp", "1777"},
	{"/var/tmp", "1777"},
	{"/dev/shm", "1777"},
}

// hide covers what the command must not see.
func (f *files) hide() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, h := range f.cfg.Hide {
		if within(f.cfg.Dir, h) {
			return fmt.Errorf("the working directory %s lies in %s, which the command must not see", f.cfg.Dir, h)
		}
	}
	var err error
	f.dir, err = os.OpenFile(f.cfg.Dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("open the working directory: %w", err)
	}
	// First what may lie below the others.
	for _, h := range f.cfg.Hide {
		if err := f.cover(h); err != nil {
			return fmt.Errorf("hide %s: %w", h, err)
		}
	}
	for _, p := range private {
		if info, err := os.Lstat(p.path); err != nil || !info.IsDir() {
			continue // not there, or a link to another of them
		}
		if err := f.tmpfs(p.path, p.mode, 0); err != nil {
			return fmt.Errorf("mount over %s: %w", p.path, err)
		}
	}
	return nil
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// cover puts nothing in the place of a directory or a file. What is not there
// need not be hidden.
func (f *files) cover(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return f.tmpfs(path, "555", unix.MS_RDONLY)
	}
	return unix.Mount("/dev/null", path, "", unix.MS_BIND, "")
}

func (f *files) tmpfs(path, mode string, flags uintptr) error {
	options := fmt.Sprintf("mode=%s,uid=%d,gid=%d", mode, f.uid, f.gid)
	return unix.Mount("tmpfs", path, "tmpfs", flags|unix.MS_NOSUID|unix.MS_NODEV, options)
}

// place puts what the command needs where it looks for it.
func (f *files) place() error {
	for _, s := range []func() error{f.workingDir, f.resolver, f.trust, f.processes} {
		if err := s(); err != nil {
			return err
		}
	}
	return nil
}

// workingDir puts a working directory that was covered back in its place.
func (f *files) workingDir() error {
	defer f.dir.Close()
	at := f.cfg.Dir
	if !slices.ContainsFunc(private, func(p struct{ path, mode string }) bool { return within(at, p.path) && at != p.path }) {
		return nil
	}
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", f.dir.Fd()), at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("put the working directory in place: %w", err)
	}
	return nil
}

// resolver makes every program ask the boundary.
func (f *files) resolver() error {
	var text strings.Builder
	for _, a := range f.cfg.Addresses {
		fmt.Fprintf(&text, "nameserver %s\n", a.Gateway)
	}
	own, err := f.write("resolv.conf", []byte(text.String()))
	if err != nil {
		return err
	}
	const name = "/etc/resolv.conf"
	to, err := filepath.EvalSymlinks(name)
	if errors.Is(err, fs.ErrNotExist) { // a link into /run, which is empty now
		if to, err = os.Readlink(name); err == nil {
			if !filepath.IsAbs(to) {
				to = filepath.Join(filepath.Dir(name), to)
			}
			if err = os.MkdirAll(filepath.Dir(to), 0o755); err == nil {
				err = os.WriteFile(to, nil, 0o644)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("put another %s in place: %w", name, err)
	}
	return f.bind(own, to)
}

// trust adds the boundary's certificate authority to every bundle of the
// system.
func (f *files) trust() error {
	if _, err := f.write("ca.crt", f.cfg.CA); err != nil {
		return err
	}
	system, places := f.bundles()
	if len(system) == 0 {
		system = f.cfg.Roots
	}
	bundle, err := f.write("ca-certificates.crt", append(append(system, '\n'), f.cfg.CA...))
	if err != nil {
		return err
	}
	for _, p := range places {
		if err := f.bind(bundle, p); err != nil {
			return err
		}
	}
	return nil
}

// Trust are the variables that make programs believe the boundary.
func Trust() []string {
	return roots.Variables(ownDir+"/ca-certificates.crt", ownDir+"/ca.crt")
}

// bundles returns the first of the system's bundles, and where they are.
func (f *files) bundles() (first []byte, places []string) {
	for _, name := range roots.Bundles {
		real, err := filepath.EvalSymlinks(name)
		if err != nil || slices.Contains(places, real) {
			continue
		}
		data, err := os.ReadFile(real)
		if err != nil || len(data) == 0 {
			continue
		}
		if first == nil {
			first = data
		}
		places = append(places, real)
	}
	return first, places
}

// write makes a file that exists for the command alone.
func (f *files) write(name string, data []byte) (string, error) {
	if err := os.MkdirAll(ownDir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(ownDir, name)
	return path, os.WriteFile(path, data, 0o444)
}

func (f *files) bind(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("put another %s in place: %w", to, err)
	}
	return nil
}

// processes shows the command its own processes and terminals instead of the
// host's.
func (f *files) processes() error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("proc", "/proc", "proc", flags, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"); err != nil {
		return fmt.Errorf("mount /dev/pts: %w", err)
	}
	return nil
}
