package agent

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/cutoutdev/cutout/internal/guest/wire"
	"golang.org/x/sys/unix"
)

// A machine is the guest, with us as its first process.
type machine struct {
	modules chan struct{} // closed when all are loaded
	failed  []string      // modules that could not be loaded; read after that

	mu         sync.Mutex
	prepared   bool // has its root
	configured bool
	volumes    []wire.Volume // to be mounted
	upperFD    int
	trust      trust
}

// Main is the life of the first process. Whatever ends it ends the guest: by
// a reset, which makes QEMU exit (-no-reboot) and say that it was one.
func Main() {
	m := &machine{modules: make(chan struct{}), upperFD: -1}
	err := m.run()
	fmt.Fprintln(os.Stderr, "cutout-agent:", err)
	end(unix.LINUX_REBOOT_CMD_RESTART)
}

func (m *machine) run() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	var up unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &up)
	if err := mountKernel(); err != nil {
		return err
	}
	calmRuntime()
	c := newChildren(true)
	go reapOrphans(c)
	mods := readModules()
	mods.load(func(name string) bool { return strings.HasPrefix(name, "virtio_console") })
	go func() {
		mods.load(nil)
		m.failed = mods.failed
		close(m.modules)
	}()
	port, err := openPort("cutout", 10*time.Second)
	if err != nil {
		return err
	}
	return newSession(port, m, c).run(time.Duration(up.Nano()))
}

// reapOrphans also takes every signal that a process of the guest may send
// us: none of them is to end the first process.
func reapOrphans(c *children) {
	got := make(chan os.Signal, 16)
	signal.Notify(got)
	for sig := range got {
		if sig == syscall.SIGCHLD {
			c.reapAll()
		}
	}
}

// shutdown is the end that the host asked for.
func (m *machine) shutdown() { end(unix.LINUX_REBOOT_CMD_POWER_OFF) }

func end(how int) {
	unix.Sync()
	for {
		unix.Reboot(how)
		time.Sleep(time.Second)
	}
}

// prepare is the way from the initial file system to the image's. Nothing
// that it does or leaves in memory may be of one sandbox alone: a snapshot of
// the prepared guest is the beginning of many.
func (m *machine) prepare(r wire.PrepareRequest) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.prepared || m.configured {
		return fmt.Errorf("prepared already")
	}
	return m.prepareLocked(r.RootSerial)
}

func (m *machine) prepareLocked(serial string) error {
	<-m.modules
	if err := m.mountRoot(serial); err != nil {
		return err
	}
	limits()
	m.prepared = true
	return nil
}

func (m *machine) fresh() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.configured
}

// configure makes the guest that of one sandbox. What concerns files of the
// image comes after the change of root, so that no symbolic link of the image
// leads out of it. A guest from a snapshot would draw the random numbers of
// all others from it, so the entropy comes before whatever could want some.
func (m *machine) configure(c wire.Config) (needRoots bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.configured {
		return false, fmt.Errorf("configured already")
	}
	m.configured = true
	if err := seed(c.Entropy); err != nil {
		return false, err
	}
	if err := m.setTime(c.Time); err != nil {
		return false, err
	}
	if !m.prepared {
		if err := m.prepareLocked(c.RootSerial); err != nil {
			return false, err
		}
	}
	if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
		return false, os.NewSyscallError("set the host name", err)
	}
	if err := configureNet(c.Net); err != nil {
		return false, err
	}
	if err := writeNames(c); err != nil {
		return false, err
	}
	m.volumes = c.Volumes
	if needRoots, err = m.trust.add(c.CA); err != nil || needRoots {
		return needRoots, err
	}
	return false, m.mountVolumes()
}

func (m *machine) roots(pem []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.trust.addRoots(pem); err != nil {
		return err
	}
	return m.mountVolumes()
}

// mountVolumes comes last: a volume may cover what was written before, and
// could not be written to.
func (m *machine) mountVolumes() error {
	for _, v := range m.volumes {
		if err := mountVolume(v); err != nil {
			return err
		}
	}
	m.volumes = nil
	return nil
}

func (m *machine) environ() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.trust.environ()
}

func (m *machine) setTime(t time.Time) error {
	if t.IsZero() {
		return nil
	}
	ts := unix.NsecToTimespec(t.UnixNano())
	return os.NewSyscallError("set the clock", unix.ClockSettime(unix.CLOCK_REALTIME, &ts))
}

func (m *machine) upper() (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.upperFD < 0 {
		return "", fmt.Errorf("not configured yet")
	}
	return fmt.Sprintf("/proc/self/fd/%d/upper", m.upperFD), nil
}

// seed credits the host's entropy and makes the generator use it at once.
func seed(entropy []byte) error {
	if len(entropy) == 0 {
		return nil
	}
	fd, err := unix.Open("/dev/urandom", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open the random number generator", err)
	}
	defer unix.Close(fd)
	var pool struct {
		bits, size int32
		data       [512]byte
	}
	n := copy(pool.data[:], entropy)
	pool.bits, pool.size = int32(8*n), int32(n)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&pool))); e != 0 {
		return os.NewSyscallError("add entropy", e)
	}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.RNDRESEEDCRNG, 0); e != 0 {
		return os.NewSyscallError("reseed the random number generator", e)
	}
	return nil
}

// limits are those of a container of today's docker.
func limits() {
	syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 1024, Max: 524288})
	writeKernel("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")
	writeKernel("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
}
