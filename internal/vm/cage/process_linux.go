package cage

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/memfile"
)

// Names under which the binary re-executes itself.
const (
	launcherName = "cutout-launcher"
	initName     = "cutout-cage"
)

// Main takes over the process if it was started as the launcher or as
// cage-init, and does not return then. Every program that calls Start calls
// Main first, tests in TestMain.
func Main() {
	switch os.Args[0] {
	case launcherName:
		launcherMain()
	case initName:
		initMain()
	}
}

// A plan is what launcher and cage-init are told, through a memory file.
type plan struct {
	Path   string
	Args   []string
	Tree   []entry // what the root directory holds
	Weak   bool
	Omit   []string
	Probe  bool
	UID    int   // host uid for a root caller; 0 = the caller's own
	GIDs   []int // host groups to keep, for devices
	NFiles int   // the program's own descriptors, from 3 on
}

func (p *plan) omits(layer string) bool {
	return slices.Contains(p.Omit, layer)
}

// A status is what launcher and cage-init tell: one JSON line, the last one
// counts.
type status struct {
	PID    int    `json:"pid,omitempty"`
	Dead   []int  `json:"dead,omitempty"` // children to reap
	Layers Layers `json:"layers"`
	Step   string `json:"step,omitempty"`
	Error  string `json:"error,omitempty"`
	Retry  bool   `json:"retry,omitempty"`   // may work without namespaces
	Lacks  bool   `json:"missing,omitempty"` // the minimum is not met
}

// A Process is a program in its cage.
type Process struct {
	proc   *os.Process
	layers Layers
	uid    io.Closer
	life   *os.File
	done   chan struct{}
	state  *os.ProcessState
	err    error
}

// Pid is the process id on the host.
func (p *Process) Pid() int { return p.proc.Pid }

// Layers says what surrounds the program.
func (p *Process) Layers() Layers { return p.layers }

// Kill ends the program at once.
func (p *Process) Kill() error {
	if err := p.proc.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Wait waits for the program's end. It may be called more than once.
func (p *Process) Wait() (*os.ProcessState, error) {
	<-p.done
	return p.state, p.err
}

// Start runs a program in a cage. When it returns without an error the
// program has been executed.
func Start(cfg Config) (*Process, error) {
	pl := plan{Path: cfg.Path, Args: cfg.Args, Weak: cfg.Weak, Omit: cfg.omit, Probe: cfg.probe, NFiles: len(cfg.Files)}
	var err error
	if !cfg.probe {
		if pl.Tree, err = tree(cfg); err != nil {
			return nil, err
		}
	}
	var lease io.Closer = io.NopCloser(nil)
	if os.Geteuid() == 0 {
		if pl.UID, lease, err = leaseUID(); err != nil {
			return nil, err
		}
		pl.GIDs = deviceGroups(cfg.Devices)
	}
	p := &Process{done: make(chan struct{}), uid: lease}
	started := make(chan error, 1)
	// The death signal is tied to the thread that forked, so this thread
	// lives exactly as long as the program.
	go func() {
		runtime.LockOSThread()
		p.run(cfg, pl, started)
	}()
	if err := <-started; err != nil {
		lease.Close()
		return nil, err
	}
	return p, nil
}

// run launches, reports on started, and waits for the end.
func (p *Process) run(cfg Config, pl plan, started chan<- error) {
	defer close(p.done)
	st, cmd, err := p.launch(cfg, pl)
	if err != nil {
		started <- err
		return
	}
	p.layers = st.Layers
	p.proc = cmd.Process
	if st.PID != cmd.Process.Pid {
		cmd.Wait()
		if p.proc, err = os.FindProcess(st.PID); err != nil {
			started <- err
			return
		}
	}
	started <- nil
	p.state, p.err = p.proc.Wait()
	p.life.Close()
	p.uid.Close()
}

// launch starts the launcher and hears what became of it.
func (p *Process) launch(cfg Config, pl plan) (st status, cmd *exec.Cmd, err error) {
	planFile, err := memfile.New(pl)
	if err != nil {
		return st, nil, err
	}
	defer planFile.Close()
	tell, told, err := os.Pipe()
	if err != nil {
		return st, nil, err
	}
	defer tell.Close()
	lifeRead, lifeWrite, err := os.Pipe()
	if err != nil {
		told.Close()
		return st, nil, err
	}
	defer lifeRead.Close()

	cmd = exec.Command("/proc/self/exe")
	cmd.Args = []string{launcherName, strconv.Itoa(3 + pl.NFiles)}
	cmd.Env = []string{}
	cmd.Dir = "/"
	if cfg.Stdout != nil {
		cmd.Stdout = cfg.Stdout
	}
	if cfg.Stderr != nil {
		cmd.Stderr = cfg.Stderr
	}
	cmd.ExtraFiles = append(append([]*os.File{}, cfg.Files...), planFile, told, lifeRead)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	told.Close()
	if err != nil {
		lifeWrite.Close()
		return st, nil, fmt.Errorf("start launcher: %w", err)
	}
	st = readStatus(tell)
	for _, pid := range st.Dead {
		reap(pid)
	}
	if st.PID == 0 {
		lifeWrite.Close()
		cmd.Process.Kill()
		cmd.Wait()
		return st, nil, st.err()
	}
	p.life = lifeWrite
	return st, cmd, nil
}

// readStatus reads status lines until every writer is gone and returns the
// last one.
func readStatus(r io.Reader) (st status) {
	s := bufio.NewScanner(io.LimitReader(r, 1<<20))
	for s.Scan() {
		var next status
		if err := json.Unmarshal(s.Bytes(), &next); err != nil {
			return status{Error: "unreadable status"}
		}
		if next.PID == 0 {
			next.PID = st.PID
		}
		if next.Error != "" {
			next.PID = 0
		}
		next.Dead = append(st.Dead, next.Dead...)
		st = next
	}
	return st
}

func (st status) err() error {
	switch {
	case st.Lacks:
		return &MissingError{Parts: st.Layers.Missing(), Why: st.Layers.Without}
	case st.Error == "":
		return errors.New("cage the monitor: the launcher died")
	case st.Step == "":
		return fmt.Errorf("cage the monitor: %s", st.Error)
	}
	return fmt.Errorf("cage the monitor: %s: %s", st.Step, st.Error)
}

// reap collects a child that launcher started in our name.
func reap(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

var (
	reportOnce sync.Once
	reported   Layers
	reportErr  error
)

// Report says which layers a cage has on this host. It finds out by building
// one, once per process.
func Report() (Layers, error) {
	reportOnce.Do(func() {
		p, err := Start(Config{Weak: true, probe: true})
		if err != nil {
			reportErr = err
			return
		}
		p.Wait()
		reported = p.Layers()
	})
	return reported, reportErr
}
