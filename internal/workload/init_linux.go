package workload

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/memfile"
)

// initMain is process 1 of the namespace. It has the command's identity and
// no capability. When it ends the kernel ends all the others.
func initMain() {
	// The command has the same user: it must not trace or read this one,
	// which could tell the caller anything.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		os.Exit(125)
	}
	c := attach()
	var cfg Config
	f := os.NewFile(configFD, "config")
	if err := memfile.Read(f, &cfg); err != nil {
		failed(c, "read configuration", err)
	}
	f.Close()
	// What the command sends to process 1 ends nothing, and what the caller
	// ignored the command does not.
	signal.Notify(make(chan os.Signal, 1))
	unix.Umask(cfg.Umask)
	if err := os.Chdir(cfg.Dir); err != nil {
		failed(c, "enter "+cfg.Dir, &Failure{Step: "enter " + cfg.Dir, Text: reason(err), Hint: "choose a directory that the command's user may enter, with -w"})
	}
	pid, tty, err := start(&cfg)
	if exit, ok := errors.AsType[*Exit](err); ok {
		c.send(message{Exit: exit}, nil)
		os.Exit(0)
	}
	if err != nil {
		failed(c, "run "+cfg.Args[0], err)
	}
	if c.send(message{Started: true}, tty) != nil {
		os.Exit(0)
	}
	if tty != nil {
		tty.Close() // the caller's alone
	}
	go obey(c, pid)
	c.send(message{Exit: reap(pid)}, nil)
	os.Exit(0)
}

// start executes the command. The error is an *Exit if it cannot be.
func start(cfg *Config) (pid int, tty *os.File, err error) {
	for _, e := range cfg.Env {
		if path, ok := strings.CutPrefix(e, "PATH="); ok {
			os.Setenv("PATH", path)
		}
	}
	path, err := exec.LookPath(cfg.Args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return 0, nil, exitOf(err)
	}
	attr := &syscall.ProcAttr{
		Dir: cfg.Dir, Env: cfg.Env, Files: []uintptr{0, 1, 2},
		// A session of its own: it must not write to the caller's terminal
		// as if it were typed (TIOCSTI).
		Sys: &syscall.SysProcAttr{Setsid: true},
	}
	if cfg.TTY {
		controlling, slave, err := pty.Open()
		if err != nil {
			return 0, nil, err
		}
		defer slave.Close()
		pty.Setsize(slave, &pty.Winsize{Rows: cfg.Rows, Cols: cfg.Cols})
		tty = controlling
		attr.Files = []uintptr{slave.Fd(), slave.Fd(), slave.Fd()}
		attr.Sys.Setctty = true
	}
	pid, err = syscall.ForkExec(path, cfg.Args, attr)
	if err != nil {
		return 0, nil, exitOf(err)
	}
	return pid, tty, nil
}

// exitOf is what a shell would say: 127 if there is no such command, 126 if
// there is and it cannot be executed.
func exitOf(err error) *Exit {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return &Exit{Code: 127, NotFound: true}
	}
	return &Exit{Code: 126, NotExecutable: true}
}

// obey does what the caller asks for until it is gone, which ends everything.
func obey(c *channel, pid int) {
	for {
		m, _, err := c.receive()
		if err != nil {
			os.Exit(0)
		}
		if m.Signal > 0 {
			unix.Kill(-pid, syscall.Signal(m.Signal))
		}
	}
}

// reap collects processes until the command has ended.
func reap(pid int) *Exit {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR) || err == nil && got != pid:
			continue
		case err != nil:
			return &Exit{Code: 125}
		case ws.Signaled():
			return &Exit{Code: 128 + int(ws.Signal())}
		}
		return &Exit{Code: ws.ExitStatus()}
	}
}

// reason is err without the operation and the path.
func reason(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err.Error()
	}
	return err.Error()
}
