package qemu

import (
	"os"

	"golang.org/x/sys/unix"
)

// pipeSize is what an ordinary user may ask for.
const pipeSize = 1 << 20

// widen gives a pipe room for both of its ends to work at once, as far as
// there may be.
func widen(w *os.File) {
	if c, err := w.SyscallConn(); err == nil {
		c.Control(func(fd uintptr) { unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	}
}
