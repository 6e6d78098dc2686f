package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// KeepLogs is how many ended sandboxes keep their audit log: enough to look
// back over a day's work, small enough never to matter on disk.
const KeepLogs = 20

// Sweep removes what sandboxes that no longer run have left: runtime
// directories, temporary files, what [Sandbox.Leave] was told of, and all but
// the last keep audit logs. It does nothing when another process is sweeping.
func (h Home) Sweep(keep int) error {
	unlock, err := h.lock(unix.LOCK_EX | unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()

	all, err := h.List()
	if err != nil {
		return err
	}
	var errs []error
	known := map[string]bool{}
	ended := 0
	for _, e := range all {
		if e.Running {
			known[e.ID] = true
			continue
		}
		if ended++; ended > keep || !h.hasLog(e.ID) {
			errs = append(errs, os.RemoveAll(h.Sandbox(e.ID)))
		}
	}
	h.removeLeft(known)
	errs = append(errs, removeExcept(h.Runtime, known), h.sweepTemporary())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sweep state: %w", err)
	}
	return nil
}

// hasLog reports whether an ended sandbox left something to look back on: an
// audit log, or its keeper's last words.
func (h Home) hasLog(id string) bool {
	for _, name := range []string{auditName, keeperLogName} {
		if info, err := os.Stat(filepath.Join(h.Sandbox(id), name)); err == nil && info.Size() > 0 {
			return true
		}
	}
	return false
}

// removeExcept deletes the sandbox directories below dir that are not known.
func removeExcept(dir string, known map[string]bool) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.IsDir() && isID(e.Name()) && !known[e.Name()] {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// isID keeps the sweep away from directories that it did not make.
func isID(s string) bool {
	if len(s) != 12 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// temporaryAge is when a half-written file can only be a dead process's.
const temporaryAge = 24 * time.Hour

func (h Home) sweepTemporary() error {
	var errs []error
	for _, dir := range []string{h.Data, h.Kernel(), h.Downloads()} {
		left, _ := filepath.Glob(filepath.Join(dir, tempPrefix+"*")) // the pattern is well formed
		for _, path := range left {
			if info, err := os.Lstat(path); err == nil && time.Since(info.ModTime()) > temporaryAge {
				errs = append(errs, os.Remove(path))
			}
		}
	}
	return errors.Join(errs...)
}
