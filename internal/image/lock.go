package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// prepare makes the store's directories and sweeps what builders that died
// left behind.
func (s *Store) prepare() error {
	if s.Dir == "" {
		return errors.New("open image store: no directory")
	}
	for _, d := range []string{"", "disks", "names", "locks", "tmp"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, d), 0o700); err != nil {
			return fmt.Errorf("create image store: %w", err)
		}
	}
	return s.sweep()
}

// sweep deletes temporary files whose builder no longer holds their lock.
func (s *Store) sweep() error {
	dir := filepath.Join(s.Dir, "tmp")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("sweep image store: %w", err)
	}
	for _, e := range entries {
		p := filepath.Join(dir, e.Name())
		f, err := os.OpenFile(p, os.O_RDONLY|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue // gone meanwhile
		}
		// A file that is younger than a moment may not be locked yet.
		st, err := f.Stat()
		if err == nil && time.Since(st.ModTime()) > 10*time.Second &&
			unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			os.Remove(p)
		}
		f.Close()
	}
	return nil
}

// temp creates a file in tmp/, mode 0600, locked for as long as it is open.
// The caller removes or renames it.
func (s *Store) temp(pattern string) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Join(s.Dir, "tmp"), pattern)
	if err != nil {
		return nil, fmt.Errorf("create temporary file: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		os.Remove(f.Name())
		return nil, fmt.Errorf("lock temporary file: %w", err)
	}
	return f, nil
}

// lock takes the lock called name, waiting until ctx is done. Lock files
// stay: removing one while another process waits for it would split it.
func (s *Store) lock(ctx context.Context, name string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.Dir, "locks", name), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock image store: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock image store: %w", err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("wait for another import of this image: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
