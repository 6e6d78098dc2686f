package snapshot

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Store is a directory of snapshots. Several processes may use one at a
// time.
//
//	NAME.snapshot   a snapshot, 0400, named by its kind
//	NAME.failed     why one of that kind could not be made or used
//	key             what snapshots are sealed with, 0600
//	.lock           held while something is written or deleted
//	.tmp-*          what is being written, by the holder of the lock
type Store struct {
	Dir string // created when needed, mode 0700

	// MaxBytes is what all snapshots may take together; the ones that were
	// not used for longest go first. 0 = DefaultMaxBytes.
	MaxBytes int64
}

// DefaultMaxBytes holds some twenty kinds: a machine that has just booted
// takes 40 to 60 MB.
const DefaultMaxBytes = 1 << 30

const (
	suffix       = ".snapshot"
	failedSuffix = ".failed"
	tempPrefix   = ".tmp-"
	keySize      = 32
)

// retry is when a kind that has failed is tried again.
const retry = time.Hour

func (s *Store) path(k Kind) string   { return filepath.Join(s.Dir, k.name()+suffix) }
func (s *Store) failed(k Kind) string { return filepath.Join(s.Dir, k.name()+failedSuffix) }

// lock takes the store's lock, which frees itself when the process dies, or
// returns ErrBusy.
func (s *Store) lock() (unlock func(), err error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make snapshot store: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(s.Dir, ".lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock snapshot store: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, fmt.Errorf("lock snapshot store: %w", err)
	}
	return func() { f.Close() }, nil
}

// key returns the store's key. A store whose key is lost gets a new one, and
// its snapshots are refused. The store must be locked if the key may be made.
func (s *Store) key(create bool) ([]byte, error) {
	path := filepath.Join(s.Dir, "key")
	key, err := os.ReadFile(path)
	if err == nil && len(key) == keySize {
		return key, nil
	}
	if !create {
		return nil, fmt.Errorf("%w: its key is lost", ErrRefused)
	}
	key = make([]byte, keySize)
	rand.Read(key)
	f, err := os.CreateTemp(s.Dir, tempPrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("make snapshot key: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(key)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("make snapshot key: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return nil, fmt.Errorf("make snapshot key: %w", err)
	}
	return key, nil
}

// Fail notes that no snapshot of that kind can be made or used, so that it is
// not tried, and said, again and again.
func (s *Store) Fail(k Kind, reason error) {
	os.Remove(s.path(k))
	os.WriteFile(s.failed(k), []byte(reason.Error()), 0o600) // or it is tried again
}

// lately returns the reason given to Fail, unless that is long ago.
func (s *Store) lately(k Kind) error {
	info, err := os.Stat(s.failed(k))
	if err != nil || time.Since(info.ModTime()) > retry {
		return nil
	}
	reason, _ := os.ReadFile(s.failed(k))
	return fmt.Errorf("%w: %s", ErrFailed, reason)
}

// Sweep deletes what is of no more use: snapshots of files that have changed
// or gone, what writers that died have left, and what is too much. It does
// nothing while somebody writes.
func (s *Store) Sweep() error {
	if _, err := os.Stat(s.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := s.lock()
	if errors.Is(err, ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	return s.sweep()
}

// sweep is Sweep under the lock.
func (s *Store) sweep() error {
	var errs []error
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return fmt.Errorf("sweep snapshots: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(s.Dir, e.Name())
		info, err := e.Info()
		switch {
		case err != nil: // gone meanwhile
		case strings.HasPrefix(e.Name(), tempPrefix),
			strings.HasSuffix(e.Name(), failedSuffix) && time.Since(info.ModTime()) > retry:
			errs = append(errs, remove(path))
		}
	}
	all, err := s.List()
	errs = append(errs, err)
	slices.SortFunc(all, func(a, b Entry) int { return b.Used.Compare(a.Used) })
	left := s.MaxBytes
	if left == 0 {
		left = DefaultMaxBytes
	}
	for _, e := range all {
		if left -= e.Size; e.Stale || left < 0 {
			errs = append(errs, remove(e.path))
		}
	}
	return errors.Join(errs...)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sweep snapshots: %w", err)
	}
	return nil
}

// An Entry is a snapshot in the store.
type Entry struct {
	Size  int64
	Used  time.Time // the last time
	Stale bool      // what it was made from is no more

	path string
}

// List returns the snapshots. It does not check their seals.
func (s *Store) List() ([]Entry, error) {
	paths, err := filepath.Glob(filepath.Join(globEscape(s.Dir), "*"+suffix))
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var all []Entry
	for _, path := range paths {
		f, info, err := openSealed(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		e := Entry{path: path, Stale: true}
		if err == nil {
			e.Size, e.Used = info.Size(), info.ModTime()
			k, err := readKind(f)
			e.Stale = err != nil || !k.current()
			f.Close()
		}
		all = append(all, e)
	}
	return all, nil
}

// Failures returns the reasons for which kinds are not tried now.
func (s *Store) Failures() []string {
	paths, _ := filepath.Glob(filepath.Join(globEscape(s.Dir), "*"+failedSuffix)) // the pattern is well formed
	var all []string
	for _, path := range paths {
		if info, err := os.Stat(path); err != nil || time.Since(info.ModTime()) > retry {
			continue
		}
		if reason, err := os.ReadFile(path); err == nil {
			all = append(all, string(reason))
		}
	}
	return all
}

// current says whether the files are still those of the kind.
func (k Kind) current() bool {
	for _, f := range k.Files {
		if now, err := Stat(f.Path); err != nil || now != f {
			return false
		}
	}
	return true
}

// globEscape quotes what Glob would expand.
func globEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}
