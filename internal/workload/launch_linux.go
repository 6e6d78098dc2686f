package workload

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/memfile"
	"github.com/cutoutdev/cutout/internal/privilege"
	"github.com/cutoutdev/cutout/internal/tap"
)

// Names under which the binary re-executes itself.
const (
	launcherName = "cutout-workload"
	enterName    = "cutout-namespaces"
	initName     = "cutout-init"
)

// channelFD is the channel's descriptor in all three, configFD that of the
// configuration in init.
const (
	channelFD = 3
	configFD  = 4
)

// Main takes over the process if it was started as one of the three, and does
// not return then. Every program that calls New calls Main first.
func Main() {
	switch os.Args[0] {
	case launcherName:
		launcherMain()
	case enterName:
		enterMain()
	case initName:
		initMain()
	}
}

// failed tells the caller why there will be no command, and ends.
func failed(c *channel, step string, err error) {
	f := &Failure{Step: step, Text: err.Error()}
	if own, ok := errors.AsType[*Failure](err); ok {
		f = own
	}
	c.send(message{Failed: f}, nil)
	os.Exit(125)
}

// attach takes the channel over.
func attach() *channel {
	err := privilege.CloseOnExec(channelFD)
	if err == nil {
		var c *channel
		if c, err = openChannel(channelFD); err == nil {
			return c
		}
	}
	os.Exit(125)
	return nil
}

const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET

// launcherMain clones itself into the namespaces and lives as long as they.
func launcherMain() {
	runtime.LockOSThread()
	c := attach()
	uid, gid, err := ids()
	if err != nil {
		failed(c, "start command", err)
	}
	root := os.Geteuid() == 0
	if root {
		if err := privilege.SetGroups(nil); err != nil { // root's may open what others may not
			failed(c, "leave groups", err)
		}
	}
	f, err := c.conn.File()
	if err != nil {
		failed(c, "start command", err)
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{enterName, os.Args[1], os.Args[2]},
		Env: []string{}, Dir: "/", Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, ExtraFiles: []*os.File{f},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: namespaces, Pdeathsig: syscall.SIGKILL,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}},
			// Whoever is not the namespace's root keeps capabilities in it
			// over an exec only so. Root, which is not mapped, still reaches
			// the directories that are to be hidden.
			AmbientCaps:                capabilities,
			GidMappingsEnableSetgroups: root,
		},
	}
	if err := cmd.Start(); err != nil {
		failed(c, "make namespaces", &Failure{Step: "make namespaces", Text: err.Error(), Hint: "allow user namespaces to ordinary users " +
			"(kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, user.max_user_namespaces), or use a machine: cutout run"})
	}
	f.Close()
	c.conn.Close() // or its end would never be seen
	cmd.Wait()
	os.Exit(0)
}

// capabilities are those that the way to init needs.
var capabilities = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SETPCAP}

func ids() (uid, gid int, err error) {
	if len(os.Args) != 3 {
		return 0, 0, errors.New("two ids are needed")
	}
	if uid, err = strconv.Atoi(os.Args[1]); err == nil {
		gid, err = strconv.Atoi(os.Args[2])
	}
	return uid, gid, err
}

// enterMain builds the command's surroundings and becomes init.
func enterMain() {
	runtime.LockOSThread()
	c := attach()
	uid, gid, err := ids()
	if err != nil {
		failed(c, "start command", err)
	}
	device, err := tap.Create(Interface)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOENT) {
		err = &Failure{Step: "make the network", Text: err.Error(), Hint: "load the module tun, and let everybody open the device, as distributions do: chmod 0666 " + tap.Device}
	}
	if err != nil {
		failed(c, "make the network", err)
	}
	if err := c.send(message{Tap: true}, device); err != nil {
		os.Exit(125)
	}
	device.Close() // the keeper's descriptor is the one that counts
	m, f, err := c.receive()
	if err != nil || !m.Config || f == nil {
		os.Exit(125) // the caller is gone
	}
	var cfg Config
	if err := memfile.Read(f, &cfg); err != nil {
		failed(c, "read configuration", err)
	}
	for _, s := range steps(&cfg, uid, gid) {
		if err := s.do(); err != nil {
			failed(c, s.name, err)
		}
	}
	failed(c, "become init", becomeInit(c, f))
}

type step struct {
	name string
	do   func() error
}

// steps are in the order in which each needs what the later ones take away.
func steps(cfg *Config, uid, gid int) []step {
	fs := &files{cfg: cfg, uid: uid, gid: gid}
	return []step{
		{"configure the network", func() error { return configureNetwork(cfg, gid) }},
		{"hide directories", fs.hide}, // root still reaches all of them
		{"take the command's user", func() error { return become(uid, gid) }},
		{"give the command its files", fs.place},
		{"leave the keyring", privilege.NewKeyring},
		{"give up capabilities", privilege.Drop},
		{"forbid new privileges", func() error { return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }},
	}
}

func configureNetwork(cfg *Config, gid int) error {
	// A network namespace lets nobody ping unless it is told to.
	os.WriteFile("/proc/sys/net/ipv4/ping_group_range", fmt.Appendf(nil, "%d %d", gid, gid), 0)
	return tap.Configure(Interface, cfg.MAC, cfg.MTU, cfg.Addresses)
}

// become takes the command's ids. Root, which is not mapped, looks like
// nobody in the namespace: only setting them makes sure. Since it does not
// count as root either it keeps its capabilities.
func become(uid, gid int) error {
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); e != 0 {
		return fmt.Errorf("set group: %w", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
		return fmt.Errorf("set user: %w", e)
	}
	// A change of ids clears it.
	return unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
}

// becomeInit executes the third stage, which thereby is one thread's work no
// more and has no capability in any.
func becomeInit(c *channel, cfg *os.File) error {
	f, err := c.conn.File()
	if err != nil {
		return err
	}
	high := make([]int, 2) // out of the way of what they are to become
	for i, from := range []*os.File{f, cfg} {
		if high[i], err = unix.FcntlInt(from.Fd(), unix.F_DUPFD_CLOEXEC, 64); err != nil {
			return err
		}
	}
	for i, to := range []int{channelFD, configFD} {
		if err := unix.Dup3(high[i], to, 0); err != nil {
			return err
		}
	}
	return syscall.Exec("/proc/self/exe", []string{initName}, []string{})
}
