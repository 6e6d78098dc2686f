package cage

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// allowedArch are older calls in the place of allowed ones.
var allowedArch = []uint32{unix.SYS_FSTATAT, unix.SYS_GETRLIMIT}
