package memfile

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func create() (*os.File, error) {
	fd, err := unix.MemfdCreate("cutout", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create memory file: %w", err)
	}
	return os.NewFile(uintptr(fd), "memory file"), nil
}
