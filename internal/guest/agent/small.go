package agent

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Under emulation the first use of any code is what costs, and package os
// does much for a file that the runtime may have to wait for. Here are small
// files of the kernel and of images, which it never has to.

var errNotRegular = errors.New("not a regular file")

// readKernel reads a short file of sysfs or procfs, without its last newline.
func readKernel(name string) (string, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var buf [128]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(string(buf[:n]), "\n"), nil
}

// writeKernel writes to a file of sysfs or procfs, which a kernel may lack.
func writeKernel(name, value string) {
	if fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
		unix.Write(fd, []byte(value))
		unix.Close(fd)
	}
}

// openRegular opens a file of the image, which may be anything: opening waits
// for nobody, and what is no regular file is an error.
func openRegular(name string, flags int) (fd int, size int64, err error) {
	fd, err = unix.Open(name, flags|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, 0, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errNotRegular
	}
	if err != nil {
		unix.Close(fd)
		return -1, 0, err
	}
	return fd, st.Size, nil
}

// readFile reads at most limit bytes of a file of the image.
func readFile(name string, limit int64) ([]byte, error) {
	fd, size, err := openRegular(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, min(size, limit))
	n := 0
	for n < len(buf) {
		m, err := unix.Read(fd, buf[n:])
		if err != nil {
			return nil, err
		}
		if m == 0 {
			break
		}
		n += m
	}
	return buf[:n], nil
}

// replace makes name a file with that content. A link, which in an image
// often leads to what a service would have made, is not followed but goes.
func replace(name, content string) error {
	fd, _, err := openRegular(name, unix.O_WRONLY|unix.O_TRUNC|unix.O_NOFOLLOW)
	if err != nil {
		if err := unix.Unlink(name); err != nil && err != unix.ENOENT {
			return &os.PathError{Op: "replace", Path: name, Err: err}
		}
		fd, err = unix.Open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return &os.PathError{Op: "create", Path: name, Err: err}
		}
	}
	defer unix.Close(fd)
	return writeAll(fd, name, content)
}

func writeAll(fd int, name, content string) error {
	for len(content) > 0 {
		n, err := unix.Write(fd, []byte(content))
		if err != nil {
			return &os.PathError{Op: "write", Path: name, Err: err}
		}
		content = content[n:]
	}
	return nil
}
