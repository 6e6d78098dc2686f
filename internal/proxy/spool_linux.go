package proxy

import (
	"os"

	"golang.org/x/sys/unix"
)

// unnamed opens a file in dir that never has a name, so that nothing can be
// left behind, or, where the file system has no such files, one that loses it
// at once.
func unnamed(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return f, nil
	}
	return nameless(dir)
}
