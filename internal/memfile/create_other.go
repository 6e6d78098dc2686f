//go:build !linux

package memfile

import "os"

// create makes a file on disk, whose name is gone at once: there is none in
// memory.
func create() (*os.File, error) {
	f, err := os.CreateTemp("", "cutout")
	if err == nil {
		os.Remove(f.Name())
	}
	return f, err
}
