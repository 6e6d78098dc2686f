package secret

import "golang.org/x/sys/unix"

// mapRegion maps n bytes that no other process can read and no child
// inherits: memfd_secret(2), else locked anonymous memory, which root can
// still read.
func mapRegion(n int) ([]byte, string, error) {
	if b, err := mapSecret(n); err == nil {
		return b, "memfd_secret", nil
	}
	b, err := mapLocked(n)
	return b, "mlock", err
}

func mapSecret(n int) ([]byte, error) {
	fd, err := unix.MemfdSecret(unix.O_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) // leaves no way in through /proc/PID/fd
	if err := unix.Ftruncate(fd, int64(n)); err != nil {
		return nil, err
	}
	b, err := unix.Mmap(fd, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	if err := unix.Madvise(b, unix.MADV_DONTFORK); err != nil {
		unix.Munmap(b)
		return nil, err
	}
	return b, nil
}

func mapLocked(n int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	err = unix.Mlock(b)
	for _, advice := range []int{unix.MADV_DONTDUMP, unix.MADV_WIPEONFORK, unix.MADV_DONTFORK} {
		if err == nil {
			err = unix.Madvise(b, advice)
		}
	}
	if err != nil {
		unix.Munmap(b)
		return nil, err
	}
	return b, nil
}
