package source

import "golang.org/x/sys/unix"

// keepOut keeps mem out of dumps and children.
func keepOut(mem []byte) {
	unix.Madvise(mem, unix.MADV_DONTDUMP)
	unix.Madvise(mem, unix.MADV_DONTFORK)
}
