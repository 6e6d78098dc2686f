package cage

import (
	"fmt"

	landlock "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// landlockABI is the version that the kernel offers, 0 for none.
func landlockABI() int {
	v, err := landlock.LandlockGetABIVersion()
	if err != nil || v < 0 {
		return 0
	}
	return v
}

// ruleset is everything that a version can forbid: all file accesses, TCP
// (4), UDP (10), signals and abstract sockets out of the domain (6), sockets
// in the file system (9).
func ruleset(abi int) (r landlock.RulesetAttr) {
	for _, v := range []struct {
		abi     int
		fs, net uint64
		scope   uint64
	}{
		{1, 1<<13 - 1, 0, 0},
		{2, landlock.AccessFSRefer, 0, 0},
		{3, landlock.AccessFSTruncate, 0, 0},
		{4, 0, landlock.AccessNetBindTCP | landlock.AccessNetConnectTCP, 0},
		{5, landlock.AccessFSIoctlDev, 0, 0},
		{6, 0, 0, landlock.ScopeAbstractUnixSocket | landlock.ScopeSignal},
		{9, landlock.AccessFSResolveUnix, 0, 0},
		{10, 0, landlock.AccessNetBindUDP | landlock.AccessNetConnectSendUDP, 0},
	} {
		if abi >= v.abi {
			r.HandledAccessFS |= v.fs
			r.HandledAccessNet |= v.net
			r.Scoped |= v.scope
		}
	}
	return r
}

// restrictFiles allows the calling thread, and so the program that it will
// execute, the files of the tree and nothing else. It also ends tracing and
// reading of every process outside, /proc or not. The library's own entry
// restricts all threads and, with cgo, needs /proc for that, which the cage
// does not have.
func restrictFiles(tree []entry, abi int) error {
	attr := ruleset(abi)
	set, err := landlock.LandlockCreateRuleset(&attr, 0)
	if err != nil {
		return fmt.Errorf("create ruleset: %w", err)
	}
	defer unix.Close(set)
	for _, e := range tree {
		access := uint64(0)
		switch e.Kind {
		case kindLink:
			continue
		case kindExec:
			access = landlock.AccessFSExecute | landlock.AccessFSReadFile
		case kindRead:
			access = landlock.AccessFSReadFile
		case kindDevice:
			access = landlock.AccessFSReadFile | landlock.AccessFSWriteFile | landlock.AccessFSIoctlDev
		}
		fd, err := unix.Open(e.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", e.Path, err)
		}
		rule := landlock.PathBeneathAttr{AllowedAccess: access & attr.HandledAccessFS, ParentFd: fd}
		err = landlock.LandlockAddPathBeneathRule(set, &rule, 0)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("allow %s: %w", e.Path, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return landlock.LandlockRestrictSelf(set, 0)
}
