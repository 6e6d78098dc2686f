// Package state lays out what Cutout keeps on the host: kernel, images and a
// directory per sandbox, and a runtime directory that is gone after a
// reboot.
//
// It promises that both belong to the caller alone (0700, owner checked,
// symbolic links refused where others could have placed them), that files
// are replaced atomically, and that whatever a crash leaves behind is found
// and swept by the next command. It never holds a value.
package state

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Home is the pair of directories that belong to one user.
type Home struct {
	Data    string // kept: kernel, images, audit logs
	Runtime string // sockets and locks of running sandboxes
}

// Default returns the caller's home, made if need be:
//
//   - data: $CUTOUT_HOME, else $XDG_DATA_HOME/cutout, else
//     ~/.local/share/cutout
//   - runtime: $CUTOUT_HOME/run, else $XDG_RUNTIME_DIR/cutout, else
//     /tmp/cutout-UID
func Default() (Home, error) {
	h, err := locate(os.Getenv, os.Getuid(), os.TempDir())
	if err != nil {
		return Home{}, err
	}
	if err := own(h.Data, os.Getuid(), 0o022); err != nil {
		return Home{}, err
	}
	return h, own(h.Runtime, os.Getuid(), 0o077)
}

// maxSocketDir leaves room for "/ID/keeper.sock" in sun_path, 108 bytes.
const maxSocketDir = 75

func locate(getenv func(string) string, uid int, tmp string) (Home, error) {
	fallback := runtimeDir(getenv, uid, tmp)
	if dir := getenv("CUTOUT_HOME"); dir != "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return Home{}, fmt.Errorf("resolve CUTOUT_HOME: %w", err)
		}
		run := filepath.Join(abs, "run")
		if len(run) > maxSocketDir {
			sum := sha256.Sum256([]byte(abs))
			run = fmt.Sprintf("%s-%x", fallback, sum[:6])
		}
		return Home{Data: abs, Runtime: run}, nil
	}
	data := getenv("XDG_DATA_HOME")
	if !filepath.IsAbs(data) { // the specification says to ignore relative ones
		home := getenv("HOME")
		if !filepath.IsAbs(home) {
			return Home{}, errors.New("find a directory for data: neither CUTOUT_HOME, XDG_DATA_HOME nor HOME is set")
		}
		data = filepath.Join(home, ".local", "share")
	}
	return Home{Data: filepath.Join(data, "cutout"), Runtime: fallback}, nil
}

// runtimeDir prefers XDG_RUNTIME_DIR, but only one that is the caller's own:
// sudo often leaves another user's in the environment.
func runtimeDir(getenv func(string) string, uid int, tmp string) string {
	if dir := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) && len(dir) < maxSocketDir-len("/cutout") {
		if info, err := os.Stat(dir); err == nil && info.IsDir() && ownedBy(info, uid) {
			return filepath.Join(dir, "cutout")
		}
	}
	if !filepath.IsAbs(tmp) || len(tmp) > maxSocketDir-len("/cutout-4294967295-0123456789ab") {
		tmp = "/tmp"
	}
	return filepath.Join(tmp, fmt.Sprintf("cutout-%d", uid))
}

// An Error is a place that cannot be used, with advice.
type Error struct {
	error
	hint string
}

func (e *Error) Unwrap() error { return e.error }

// Hint is what the user can do.
func (e *Error) Hint() string { return e.hint }

// elsewhere is the advice where a place is not ours to repair.
const elsewhere = "set CUTOUT_HOME to a directory of your own that you may write to"

// own makes dir with mode 0700, or checks one that exists: it must be a
// directory of uid's with no bit of deny set. In a shared place such as /tmp
// somebody else may have made it, or a link there, first.
func own(dir string, uid int, deny fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return &Error{fmt.Errorf("make state directory: %w", err), elsewhere}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return &Error{fmt.Errorf("make state directory: %w", err), elsewhere}
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("check state directory: %w", err)
	}
	switch {
	case !info.IsDir():
		return &Error{fmt.Errorf("check state directory: %s is not a directory itself", dir), "name the directory itself"}
	case !ownedBy(info, uid):
		return &Error{fmt.Errorf("check state directory: %s belongs to another user", dir), elsewhere}
	case info.Mode().Perm()&deny != 0:
		return &Error{
			fmt.Errorf("check state directory: %s is open to others (mode %04o)", dir, info.Mode().Perm()),
			fmt.Sprintf("run: chmod go-rwx %s", dir),
		}
	}
	return nil
}

func ownedBy(info fs.FileInfo, uid int) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == uid
}

// Kernel is the directory of the guest kernel and the initramfs.
func (h Home) Kernel() string { return filepath.Join(h.Data, "kernel") }

// Images is the directory of the image store.
func (h Home) Images() string { return filepath.Join(h.Data, "images") }

// Snapshots is the directory of machines that have booted, which may be
// deleted at any time.
func (h Home) Snapshots() string { return filepath.Join(h.Data, "snapshots") }

// Cache is the directory of downloads, which may be deleted at any time.
func (h Home) Cache() string { return filepath.Join(h.Data, "cache") }

// Downloads is where the distribution's packages, and what is made of them,
// are put.
func (h Home) Downloads() string { return filepath.Join(h.Cache(), "debian") }

// Sandboxes is the directory with one directory per sandbox.
func (h Home) Sandboxes() string { return filepath.Join(h.Data, "sandboxes") }

// Sandbox is the directory of the sandbox id: its audit log and console.
func (h Home) Sandbox(id string) string { return filepath.Join(h.Sandboxes(), id) }

// SandboxRuntime is the directory of the running sandbox id: its sockets.
func (h Home) SandboxRuntime(id string) string { return filepath.Join(h.Runtime, id) }

// lock takes the home's own lock, which guards the making and sweeping of
// sandboxes, and returns what releases it.
func (h Home) lock(how int) (func(), error) {
	f, err := os.OpenFile(filepath.Join(h.Data, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, &Error{fmt.Errorf("lock state directory: %w", err), elsewhere}
	}
	if err := flock(f, how); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock state directory: %w", err)
	}
	return func() { f.Close() }, nil
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
