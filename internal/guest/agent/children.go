package agent

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// children starts processes and tells how they end. A process is signalled
// and reaped under one lock, so that a signal never meets a reused number.
type children struct {
	init bool // we are process 1 and reap every orphan

	mu     sync.Mutex
	waited map[int]func(syscall.WaitStatus)
	closed bool
}

func newChildren(init bool) *children {
	return &children{init: init, waited: make(map[int]func(syscall.WaitStatus))}
}

// start forks; ended is called once, on another goroutine.
func (c *children) start(fork func() (int, error), ended func(syscall.WaitStatus)) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, syscall.ECANCELED
	}
	pid, err := withDefaultSlack(fork)
	if err != nil {
		return 0, err
	}
	c.waited[pid] = ended
	if !c.init {
		go c.wait(pid)
	}
	return pid, nil
}

// wait waits for one child, as a process does that has others besides.
func (c *children) wait(pid int) {
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	c.reap(pid)
}

// reapAll reaps whatever has ended: our children and their orphans.
func (c *children) reapAll() {
	for c.reap(-1) {
	}
}

func (c *children) reap(pid int) bool {
	c.mu.Lock()
	var ws syscall.WaitStatus
	pid, err := syscall.Wait4(pid, &ws, syscall.WNOHANG, nil)
	if err == syscall.EINTR {
		c.mu.Unlock()
		return true
	}
	if err != nil || pid <= 0 {
		c.mu.Unlock()
		return false
	}
	ended := c.waited[pid]
	delete(c.waited, pid)
	c.mu.Unlock()
	if ended != nil {
		ended(ws)
	}
	return true
}

// signal signals the process group of a child that is not reaped.
func (c *children) signal(pid, sig int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.waited[pid]; ok {
		syscall.Kill(-pid, syscall.Signal(sig))
	}
}

// killAll kills everything that was started, and starts nothing more. The
// first process kills everything there is.
func (c *children) killAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.init {
		syscall.Kill(-1, syscall.SIGKILL)
		return
	}
	for pid := range c.waited {
		syscall.Kill(-pid, syscall.SIGKILL)
	}
}
