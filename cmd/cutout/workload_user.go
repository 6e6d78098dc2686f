package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/cutoutdev/cutout/internal/term"
)

// A workloadUser is whom a command without a machine runs as.
type workloadUser struct {
	UID, GID int
	Name     string
	Home     string
	Changed  bool // not the caller
}

// lookupWorkloadUser returns the caller, or, for root, the user who is named,
// the one who called sudo, or nobody: never root.
func lookupWorkloadUser(named string) (workloadUser, error) {
	if os.Geteuid() != 0 {
		if named != "" {
			return workloadUser{}, usageError{errors.New("-u: only root can run a command as somebody else")}
		}
		u := workloadUser{UID: os.Getuid(), GID: os.Getgid(), Name: fmt.Sprint("user ", os.Getuid())}
		if found, err := user.LookupId(strconv.Itoa(u.UID)); err == nil {
			u.Name = found.Username
		}
		return u, nil
	}
	name, group, _ := strings.Cut(named, ":")
	if name == "" {
		name = os.Getenv("SUDO_UID")
	}
	if name == "" || name == "0" && named == "" {
		name = "nobody"
	}
	u, err := findUser(name)
	if err != nil {
		return u, usageError{err}
	}
	if group != "" {
		if u.GID, err = findGroup(group); err != nil {
			return u, usageError{err}
		}
	}
	if u.UID == 0 || u.GID == 0 {
		err := usageError{errors.New("-u: a command without a machine does not run as root, nor in root's group")}
		return u, term.WithHint(err, "name another user, or use a machine, in which the command is root: cutout run")
	}
	return u, nil
}

// findUser finds a user by name or number. A number need not have a name.
func findUser(name string) (workloadUser, error) {
	id, notNumber := strconv.Atoi(name)
	found, err := user.Lookup(name)
	if notNumber == nil {
		found, err = user.LookupId(name)
	}
	switch {
	case err == nil:
		u := workloadUser{Name: found.Username, Home: found.HomeDir, Changed: true}
		if u.UID, err = strconv.Atoi(found.Uid); err == nil {
			u.GID, err = strconv.Atoi(found.Gid)
		}
		return u, err
	case notNumber == nil && id >= 0:
		return workloadUser{UID: id, GID: id, Name: fmt.Sprint("user ", id), Home: "/", Changed: true}, nil
	}
	return workloadUser{}, fmt.Errorf("-u: there is no user %q", name)
}

func findGroup(name string) (int, error) {
	if id, err := strconv.Atoi(name); err == nil {
		return id, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("-u: there is no group %q", name)
	}
	return strconv.Atoi(g.Gid)
}
