package cage

import (
	"github.com/cutoutdev/cutout/internal/seccomp"
	"golang.org/x/sys/unix"
)

// monitorCalls is the filter of a monitor that was given all its channels.
func monitorCalls() seccomp.Filter {
	return seccomp.Filter{
		Calls: append(seccomp.Own(),
			unix.SYS_SECCOMP, // a filter of its own, on top of this one
			unix.SYS_EXECVE,  // the program itself; QEMU's -sandbox spawn=deny ends it
		),
		First: []seccomp.First{seccomp.OwnPrctl()},
	}
}
