package agent

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const modulesDir = "/mods"

// modules are those of the initial file system that are not loaded yet.
type modules struct {
	names  []string // files in modulesDir, each after those that it needs
	signed bool     // the kernel insists on signatures
	failed []string
}

// readModules reads the list of modules, one file name a line.
func readModules() *modules {
	order, _ := os.ReadFile(filepath.Join(modulesDir, "order"))
	return &modules{names: strings.Fields(string(order))}
}

// load loads modules up to and including the first for which until is true,
// and goes on from there when called again.
func (m *modules) load(until func(name string) bool) {
	for len(m.names) > 0 {
		name := filepath.Base(m.names[0])
		m.names = m.names[1:]
		file := filepath.Join(modulesDir, name)
		if err := m.loadOne(file); err != nil {
			m.failed = append(m.failed, name+": "+err.Error())
		}
		if until != nil && until(name) {
			return
		}
		runtime.Gosched() // who waits for the port has a look
	}
}

// loadOne asks the kernel not to look at the module's version, since it then
// does not look at the signature either: the modules come from where the
// kernel comes from, and an emulated guest takes 10 ms and more for each. A
// kernel that refuses gets them in the usual way.
func (m *modules) loadOne(file string) error {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !m.signed {
		if err = finitModule(fd, unix.MODULE_INIT_IGNORE_VERMAGIC); err == nil {
			return nil
		}
		m.signed = true
	}
	return finitModule(fd, 0)
}

// finitModule does not tell the runtime that it is in the kernel, so that no
// other thread is woken to take over; there is one processor, and it is busy.
func finitModule(fd int, flags uintptr) error {
	var none [1]byte // no parameters
	_, _, errno := unix.RawSyscall(unix.SYS_FINIT_MODULE, uintptr(fd), uintptr(unsafe.Pointer(&none)), flags)
	if errno == 0 || errno == unix.EEXIST {
		return nil
	}
	return errno
}
