package state

import (
	"fmt"
	"os"
	"path/filepath"
)

const tempPrefix = ".tmp-"

// CreateTemp makes a file of mode 0600 in dir, one of the home's. The caller
// removes it; if it dies first the sweep does.
func CreateTemp(dir string) (*os.File, error) { return os.CreateTemp(dir, tempPrefix+"*") }

// WriteFile replaces the file at path by data, with mode perm. Whatever
// happens, path holds either the old content or the whole new one.
func WriteFile(path string, data []byte, perm os.FileMode) (err error) {
	dir := filepath.Dir(path)
	f, err := CreateTemp(dir)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Chmod(perm); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
