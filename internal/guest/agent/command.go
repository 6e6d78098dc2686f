package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cutoutdev/cutout/internal/guest/wire"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

var errNotFound = errors.New("command not found")

// A command is a request made concrete in this file system.
type command struct {
	path string
	args []string
	env  []string
	dir  string
	user user
}

func resolve(r wire.StartRequest, trust []string) (command, error) {
	if len(r.Args) == 0 {
		return command{}, errors.New("no command given")
	}
	c := command{dir: filepath.Join("/", r.Dir)}
	for _, a := range r.Args {
		c.args = append(c.args, string(a))
	}
	var err error
	if c.user, err = lookup(r.User); err != nil {
		return c, err
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return c, err
	}
	c.env = environment(r, c.user, trust)
	c.path, err = search(c.args[0], c.dir, value(c.env, "PATH"))
	if err != nil {
		return c, &startError{c.args[0], err}
	}
	return c, nil
}

// environment is the request's variables, and before them what it leaves
// open. Of a variable given twice the last counts.
func environment(r wire.StartRequest, u user, trust []string) []string {
	defaults := []string{"PATH=" + defaultPath, "HOME=" + u.home}
	if name, err := os.Hostname(); err == nil {
		defaults = append(defaults, "HOSTNAME="+name)
	}
	if r.TTY {
		defaults = append(defaults, "TERM=xterm")
	}
	defaults = append(defaults, trust...)
	at := make(map[string]int)
	var env []string
	add := func(v string) {
		name, _, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return
		}
		if i, ok := at[name]; ok {
			env[i] = v
			return
		}
		at[name] = len(env)
		env = append(env, v)
	}
	for _, v := range defaults {
		add(v)
	}
	for _, v := range r.Env {
		add(string(v))
	}
	return env
}

func value(env []string, name string) string {
	for _, v := range env {
		if n, s, _ := strings.Cut(v, "="); n == name {
			return s
		}
	}
	return ""
}

// search finds a command as execvp(3) does, in the guest's PATH.
func search(name, dir, path string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, executable(name)
	}
	err := errNotFound
	for _, d := range strings.Split(path, ":") {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		file := filepath.Join(d, name)
		switch e := executable(file); {
		case e == nil:
			return file, nil
		case errors.Is(e, syscall.EACCES):
			err = e
		}
	}
	return "", err
}

func executable(file string) error {
	fi, err := os.Stat(file)
	switch {
	case err != nil:
		return errors.Unwrap(err)
	case fi.IsDir(), fi.Mode().Perm()&0o111 == 0:
		return syscall.EACCES
	}
	return nil
}
