package agent

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// stdio is a command's three files: the child's ends, blocking, and ours.
type stdio struct {
	child []int
	in    *os.File
	out   []*os.File
	tty   *os.File
}

// open makes pipes or a terminal, owned by the command's user, who may want to
// open /dev/stdout by name.
func (p *process) open(tty bool, u user) (*stdio, error) {
	if tty {
		return p.openTTY(u)
	}
	s := &stdio{}
	for i := range 3 {
		var fd [2]int
		if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
			s.closeChild()
			s.closeOurs()
			return nil, os.NewSyscallError("make a pipe", err)
		}
		child, ours := fd[1], fd[0]
		if i == 0 {
			child, ours = fd[0], fd[1]
		}
		u.own(child)
		s.child = append(s.child, child)
		if f := file(ours, "pipe"); i == 0 {
			s.in = f
		} else {
			s.out = append(s.out, f)
		}
	}
	return s, nil
}

func (p *process) openTTY(u user) (*stdio, error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open a terminal", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	child := -1
	if err == nil {
		child, err = unix.Open("/dev/pts/"+strconv.Itoa(n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("open a terminal", err)
	}
	u.own(child)
	f := file(fd, "ptmx")
	setSize(f, p.rows, p.cols)
	return &stdio{child: []int{child, child, child}, in: f, out: []*os.File{f}, tty: f}, nil
}

// file makes a descriptor one that the runtime polls.
func file(fd int, name string) *os.File {
	unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), name)
}

func (s *stdio) closeChild() {
	for i, fd := range s.child {
		if i == 0 || fd != s.child[0] {
			unix.Close(fd)
		}
	}
}

func (s *stdio) closeOurs() {
	if s.in != nil {
		s.in.Close()
	}
	for _, f := range s.out {
		f.Close()
	}
}

func setSize(f *os.File, rows, cols uint16) {
	if rows == 0 || cols == 0 {
		return
	}
	if c, err := f.SyscallConn(); err == nil {
		c.Control(func(fd uintptr) {
			unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
		})
	}
}

func isTTY(f *os.File) bool { return f.Name() == "ptmx" }
