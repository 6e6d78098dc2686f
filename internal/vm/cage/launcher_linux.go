package cage

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/memfile"
	"github.com/cutoutdev/cutout/internal/privilege"
)

// A helper is the re-executed binary as launcher or as cage-init.
type helper struct {
	plan plan
	told int      // where status lines go
	life int      // reads end of file once the caller is dead
	file *os.File // the plan's
}

// inherit takes over the plan and the two pipes, whose first descriptor is
// the argument, and sees to it that the program does not get them.
func inherit() (*helper, error) {
	fd, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return nil, err
	}
	// From the plan on; whatever the caller's own parents left open as well.
	if err := privilege.CloseOnExec(fd); err != nil {
		return nil, err
	}
	h := &helper{told: fd + 1, life: fd + 2, file: os.NewFile(uintptr(fd), "plan")}
	return h, memfile.Read(h.file, &h.plan)
}

func (h *helper) tell(st status) {
	line, _ := json.Marshal(st)
	unix.Write(h.told, append(line, '\n'))
}

// launcherMain tries the ways to run the program, best first. It ends once
// the program runs, which is the caller's child, not its own; or, without
// namespaces, becomes the program.
func launcherMain() {
	runtime.LockOSThread()
	h, err := inherit()
	if err != nil {
		os.Exit(125)
	}
	var failed status
	var dead []int
	for _, flags := range h.ways() {
		st := h.clone(flags)
		if st.Error == "" {
			st.Dead = dead
			if failed.Error != "" {
				st.Layers.Without = failed.Step + ": " + failed.Error
			}
			h.tell(st)
			os.Exit(0)
		}
		failed = st
		if st.PID != 0 {
			dead = append(dead, st.PID)
		}
		if !st.Retry {
			break
		}
	}
	failed.PID, failed.Dead = 0, dead
	if failed.Error != "" && !failed.Retry {
		h.tell(failed)
		os.Exit(125)
	}
	h.tell(status{Dead: dead})
	failed = h.confine(false, failed.Step+": "+failed.Error)
	failed.PID = 0
	h.tell(failed)
	os.Exit(125)
}

const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC |
	unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// ways are the sets of namespaces to try. Without user namespaces only root
// can have the others.
func (h *helper) ways() []uintptr {
	var w []uintptr
	if h.plan.omits("namespaces") {
		return nil
	}
	if !h.plan.omits("user") {
		w = append(w, namespaces|unix.CLONE_NEWUSER)
	}
	if h.plan.UID != 0 {
		w = append(w, namespaces)
	}
	return w
}

// clone starts cage-init in new namespaces and waits until it has executed
// the program or failed.
func (h *helper) clone(flags uintptr) status {
	tell, told, err := os.Pipe()
	if err != nil {
		return status{Step: "pipe", Error: err.Error()}
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{initName, os.Args[1]}
	cmd.Env = []string{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	for fd := 3; fd < 3+h.plan.NFiles; fd++ {
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(fd), "inherited"))
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, h.file, told, os.NewFile(uintptr(h.life), "life"))
	// As the caller's child the program can be waited for and dies with it,
	// and no launcher has to stay in memory.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: flags | unix.CLONE_PARENT}
	if flags&unix.CLONE_NEWUSER != 0 {
		h.mapIDs(cmd.SysProcAttr)
	}
	err = cmd.Start()
	told.Close()
	if err != nil {
		return status{Step: "clone", Error: err.Error(), Retry: true}
	}
	st := readStatus(tell)
	if st.PID == 0 && st.Error == "" {
		st.Error = "cage-init died"
	}
	st.PID = cmd.Process.Pid
	return st
}

// mapIDs gives an ordinary user its own id as the namespace's root. A root
// caller keeps root, so that the root directory can be built from files that
// only root reaches, beside the program's own id 1.
func (h *helper) mapIDs(a *syscall.SysProcAttr) {
	id := func(in, host int) syscall.SysProcIDMap {
		return syscall.SysProcIDMap{ContainerID: in, HostID: host, Size: 1}
	}
	if h.plan.UID == 0 {
		a.UidMappings = []syscall.SysProcIDMap{id(0, os.Geteuid())}
		a.GidMappings = []syscall.SysProcIDMap{id(0, os.Getegid())}
		return
	}
	a.UidMappings = []syscall.SysProcIDMap{id(0, 0), id(1, h.plan.UID)}
	a.GidMappings = []syscall.SysProcIDMap{id(0, 0), id(1, h.plan.UID)}
	for i, g := range h.plan.GIDs {
		a.GidMappings = append(a.GidMappings, id(2+i, g))
	}
	a.GidMappingsEnableSetgroups = true
}

// initMain is cage-init: it confines itself and becomes the program.
func initMain() {
	runtime.LockOSThread()
	unix.Umask(0o022) // the caller's may hide the new root from the program's uid
	h, err := inherit()
	if err != nil {
		os.Exit(125)
	}
	h.tell(h.confine(true, ""))
	os.Exit(125)
}

// alive checks that the caller has not died before the death signal was set.
func (h *helper) alive() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	fds := []unix.PollFd{{Fd: int32(h.life), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, 0); err != nil && err != unix.EINTR {
		return err
	}
	if fds[0].Revents != 0 {
		return errors.New("the caller is dead")
	}
	return nil
}
