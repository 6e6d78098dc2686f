//go:build !linux

package secret

import "golang.org/x/sys/unix"

// mapRegion maps n bytes that are never swapped out.
func mapRegion(n int) ([]byte, string, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, "", err
	}
	if err := unix.Mlock(b); err != nil {
		unix.Munmap(b)
		return nil, "", err
	}
	return b, "mlock", nil
}
