package agent

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A user is who a command runs as.
type user struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

func (u user) credential() *syscall.Credential {
	if os.Geteuid() != 0 { // a test that is not root can only be itself
		return nil
	}
	return &syscall.Credential{Uid: u.uid, Gid: u.gid, Groups: u.groups}
}

func (u user) own(fd int) {
	if u.uid != 0 {
		unix.Fchown(fd, int(u.uid), int(u.gid))
	}
}

// lookup reads name|uid[:group|gid] by the image's passwd and group files. A
// number need not be in them.
func lookup(spec string) (user, error) {
	name, group, hasGroup := strings.Cut(spec, ":")
	if name == "" {
		name = "0"
	}
	u := user{home: "/"}
	login := ""
	n, numeric := number(name)
	u.uid = n
	for _, f := range table("/etc/passwd", 7) {
		uid, ok1 := number(f[2])
		gid, ok2 := number(f[3])
		if ok1 && ok2 && (f[0] == name || numeric && uid == n) {
			login, u.uid, u.gid = f[0], uid, gid
			if f[5] != "" {
				u.home = f[5]
			}
			break
		}
	}
	if login == "" && !numeric {
		return u, fmt.Errorf("no user %s in the image", name)
	}
	if login == "" && n == 0 {
		login, u.home = "root", "/root"
	}
	groups := table("/etc/group", 4)
	if hasGroup {
		gid, err := lookupGroup(groups, group)
		u.gid = gid
		return u, err
	}
	u.groups = []uint32{u.gid}
	for _, f := range groups {
		gid, ok := number(f[2])
		if !ok || gid == u.gid || len(u.groups) == 1<<10 {
			continue
		}
		for member := range strings.SplitSeq(f[3], ",") {
			if member == login && login != "" {
				u.groups = append(u.groups, gid)
				break
			}
		}
	}
	return u, nil
}

func lookupGroup(groups [][]string, name string) (uint32, error) {
	n, numeric := number(name)
	for _, f := range groups {
		if gid, ok := number(f[2]); ok && f[0] == name {
			return gid, nil
		}
	}
	if !numeric {
		return 0, fmt.Errorf("no group %s in the image", name)
	}
	return n, nil
}

func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return uint32(n), err == nil
}

// table reads the lines of a file that have at least n fields. A file that
// cannot be read has none.
func table(file string, n int) [][]string {
	data, err := readFile(file, 1<<20)
	if err != nil {
		return nil
	}
	var rows [][]string
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) >= n && !strings.HasPrefix(line, "#") {
			rows = append(rows, f)
		}
	}
	return rows
}
