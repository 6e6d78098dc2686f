// Package cage starts a program, the virtual machine monitor, so that an
// attacker who takes it over from the guest gains nothing but the files it was
// given: no file, process, socket, network, key or device of the host.
//
// The caller ([Start]) is re-executed as the launcher, which holds no secret
// and which, unlike an undumpable parent, may create a user namespace; the
// launcher clones itself into new namespaces as cage-init, and that builds an
// empty root directory, drops every privilege, confines itself and executes
// the program. Each layer closes something that the others leave open:
//
//   - namespaces (user, mount, pid, ipc, net, uts, cgroup) with a root
//     directory that holds the program, its libraries and the files named
//   - no capabilities, locked securebits, no_new_privs; started by root, a
//     uid of its own
//   - landlock: the same files, no TCP, no signals and abstract sockets out
//   - a seccomp filter that lists what is allowed
//
// Without user namespaces landlock and the filter remain. The minimum is: the
// filter, no foreign files, no view of other processes. Where a part of it is
// missing Start refuses and names it, unless Config.Weak.
//
// The program dies with the thread that started it, and so with the caller.
package cage

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// ErrUnsupported is returned where there is no cage for the operating system.
var ErrUnsupported = errors.New("this system has no cage for the monitor")

// A Config describes a program and all that it may touch.
type Config struct {
	Path    string   // the binary, absolute; its libraries are found
	Plugins []string // shared objects that it loads by itself; their libraries too
	Args    []string // with Args[0]; must hold no secret
	Read    []string // files that it may read
	Devices []string // character devices that it may open for reading and writing

	Files  []*os.File // become descriptors 3, 4, …; the caller keeps its own
	Stdout *os.File   // nil = /dev/null
	Stderr *os.File   // nil = /dev/null

	Weak bool // start it even if the minimum is not met

	omit  []string // layers left out, for the tests that show what each is for
	probe bool     // stop before executing, for Report
}

// Layers says what surrounds a caged program, or could.
type Layers struct {
	UserNS   bool `json:"user_ns"`
	Root     bool `json:"root"` // own root directory
	PIDs     bool `json:"pids"` // own process ids
	NetNS    bool `json:"net_ns"`
	Landlock int  `json:"landlock"` // ABI version, 0 = none
	Seccomp  bool `json:"seccomp"`
	UID      int  `json:"uid"` // on the host
	// Without says why namespaces are missing, if they are.
	Without string `json:"without,omitempty"`
}

// Missing names the parts of the minimum that are not met.
func (l Layers) Missing() []string {
	var m []string
	if !l.Seccomp {
		m = append(m, "system call filter")
	}
	if !l.Root && l.Landlock == 0 {
		m = append(m, "file confinement (user namespaces or landlock)")
	}
	if !l.PIDs && l.Landlock == 0 {
		m = append(m, "process confinement (user namespaces or landlock)")
	}
	return m
}

// Weaker names the layers beyond the minimum that are not there.
func (l Layers) Weaker() []string {
	var m []string
	if !l.Root || !l.PIDs {
		m = append(m, "namespaces")
	}
	if !l.UserNS && l.Root {
		m = append(m, "user namespace")
	}
	if l.Landlock == 0 {
		m = append(m, "landlock")
	} else if l.Landlock < scopedABI && !l.PIDs {
		m = append(m, fmt.Sprintf("landlock scopes (ABI %d, needs %d)", l.Landlock, scopedABI))
	}
	return m
}

// scopedABI is the landlock version that confines signals and abstract
// sockets.
const scopedABI = 6

// A MissingError says which part of the minimum cannot be had here.
type MissingError struct {
	Parts []string
	Why   string
}

func (e *MissingError) Error() string {
	s := "cannot cage the monitor: no " + strings.Join(e.Parts, ", no ")
	if e.Why != "" {
		s += " (" + e.Why + ")"
	}
	return s
}
