// Package workload runs a command of this machine, as it is, in namespaces of
// its own whose only network interface ends in a descriptor: what a boundary
// is plugged into where there is no virtual machine.
//
// The caller ([New]) is re-executed three times. The launcher holds nothing
// and, unlike an undumpable parent, may create a user namespace; it clones
// itself into new user, pid, mount, ipc and network namespaces. There the
// second makes the interface, covers what the command must not see, takes the
// command's identity and gives up every capability for good; then it becomes
// the third, init, which runs the command and reaps what it leaves behind.
// None of them has a variable of the caller's environment.
//
// It promises: the command sees no process but its own, no interface but the
// boundary's, none of the directories that are to be hidden, no socket below
// /run and /tmp; it has no capability and can gain none; being in another
// user namespace it may not trace or read a process outside, whoever that
// belongs to. It ends with its caller.
//
// It does not promise what a machine does: the kernel is the host's, and so
// are the files, as far as the command's user may read and write them.
package workload

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/cutoutdev/cutout/internal/tap"
)

// ErrUnsupported is returned where the operating system has no namespaces.
var ErrUnsupported = errors.New("commands without a machine need Linux")

// Interface is what the workload's network interface is called.
const Interface = "eth0"

// Options are what a workload starts with.
type Options struct {
	UID, GID              int // never root's
	Stdin, Stdout, Stderr *os.File
}

// A Config is what the command is.
type Config struct {
	Args  []string
	Env   []string // all of it; must hold no value
	Dir   string   // absolute
	Umask int
	TTY   bool // a terminal of its own, in place of the three streams
	Rows  uint16
	Cols  uint16

	Hide []string // directories and files that the command must not see

	MAC       net.HardwareAddr
	MTU       int
	Addresses []tap.Address

	CA    []byte // PEM; added to what the system trusts
	Roots []byte // PEM; what it trusts if the system has no roots of its own
}

// An Exit is how a command ended.
type Exit struct {
	Code          int
	NotFound      bool
	NotExecutable bool
}

func (e *Exit) Error() string { return fmt.Sprintf("exit status %d", e.Code) }

// A Failure is what kept the command from starting.
type Failure struct {
	Step string // what was being done
	Text string
	Hint string
}

func (f *Failure) Error() string { return f.Step + ": " + f.Text }

// ErrGone is returned if the namespaces ended before the command had.
var ErrGone = errors.New("the command's namespaces have ended")

// endTimeout is how long the kernel may take to end all processes of the
// namespaces.
const endTimeout = 5 * time.Second
