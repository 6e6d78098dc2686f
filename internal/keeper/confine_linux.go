package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cutoutdev/cutout/internal/seccomp"
	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
)

// resolvConf is what the resolver reads again whenever it changes.
const resolvConf = "/etc/resolv.conf"

// confine leaves the keeper, which has its machine, its control socket and
// its roots by now, what it does from here on: it writes in the directories of
// its sandbox, reads the list of resolvers, and makes sockets of the
// internet protocols. Somebody who takes it over through what the guest sends
// reaches no other file, no socket of the file system, no other process, and
// can start no program. Kernels without landlock or filters go without.
// The files of also can be read too.
func confine(d Dirs, also ...string) error {
	rules := []landlock.Rule{
		landlock.RWDirs(d.State, d.Runtime),
		// The runtime directory itself goes at the end.
		landlock.PathAccess(landlock.AccessFSSet(unix.LANDLOCK_ACCESS_FS_REMOVE_DIR), filepath.Dir(d.Runtime)),
	}
	for _, path := range also {
		rules = append(rules, landlock.ROFiles(path).IgnoreIfMissing())
	}
	rules = append(rules, resolvers(resolvConf, os.Geteuid())...)
	// Of the scopes none: it must be able to end its machine.
	if err := landlock.V11.BestEffort().RestrictPaths(rules...); err != nil {
		return fmt.Errorf("confine keeper to its files: %w", err)
	}
	if !seccomp.Supported() {
		return nil
	}
	return keeperCalls().Process()
}

// resolvers is what must be readable for the list of resolvers in path: the
// file, and the directory that it links into, where a resolver's manager
// replaces it. In /etc, an ordinary user reads what everybody may; root is
// given the file alone, and one that replaces it is not seen.
func resolvers(path string, uid int) []landlock.Rule {
	file, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil
	}
	rules := []landlock.Rule{landlock.ROFiles(file).IgnoreIfMissing()}
	if dir := filepath.Dir(file); uid != 0 || dir != filepath.Dir(path) {
		rules = append(rules, landlock.PathAccess(landlock.AccessFSSet(unix.LANDLOCK_ACCESS_FS_READ_FILE), dir))
	}
	return rules
}

// keeperCalls are the calls of a keeper at work: what is its own, the sockets
// of its flows, the files of its sandbox, and the end of its machine. No
// socket of the file system, which is how others of its user are reached.
func keeperCalls() seccomp.Filter {
	return seccomp.Filter{
		Calls: slices.Concat(seccomp.Own(), []uint32{
			unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_ACCEPT4,
			unix.SYS_RECVMMSG, unix.SYS_SENDMMSG, unix.SYS_SPLICE, unix.SYS_TEE, unix.SYS_SENDFILE,
			unix.SYS_UNLINKAT, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_MKDIRAT, unix.SYS_FCHMOD, unix.SYS_FLOCK,
			unix.SYS_PIDFD_SEND_SIGNAL, unix.SYS_WAITID, unix.SYS_WAIT4,
			unix.SYS_MEMFD_SECRET,
		}),
		First: []seccomp.First{
			seccomp.OwnPrctl(),
			{Call: unix.SYS_SOCKET, Values: []uint32{unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}},
		},
	}
}
