// Command cutout runs untrusted code in a microVM that never holds a
// credential; see README.md.
package main

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/source/helper"
	"github.com/cutoutdev/cutout/internal/vm/cage"
	"github.com/cutoutdev/cutout/internal/vm/qemu"
	"github.com/cutoutdev/cutout/internal/workload"
)

// callerUmask is for commands that run as the caller's own.
var callerUmask int

func main() {
	reexecuted()
	callerUmask = unix.Umask(0o022) // of kernel files, for QEMU's sake; their directory is 0700
	os.Exit(execute(os.Args[1:]))
}

// reexecuted takes the process over if it is one that Cutout starts of
// itself, told by its name: keeper, source helper, launcher, cage, probe,
// namespaces.
func reexecuted() {
	keeper.Main()
	helper.Main(keeper.Harden)
	qemu.Main()
	cage.Main()
	workload.Main()
}
