package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/keeper"
)

// A family is every process that this test has started, directly or not, as
// often as it is looked at.
type family struct {
	self      int
	strangers map[int]bool       // by id, which is not used again in a test's time
	alive     map[int]*processIn // those of the family
}

// A processIn is a member of a family, under its latest name.
type processIn struct {
	process
	name string
}

// newFamily makes this process the parent of its descendants' orphans, so
// that none leaves the family.
func newFamily(t *testing.T) *family {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) })
	f := &family{self: os.Getpid(), strangers: map[int]bool{}, alive: map[int]*processIn{}}
	f.look()
	for pid := range f.alive { // of tests before
		delete(f.alive, pid)
		f.strangers[pid] = true
	}
	return f
}

// look finds who has come and gone.
func (f *family) look() {
	for pid, p := range f.alive {
		if !p.alive() {
			delete(f.alive, pid)
		} else {
			p.name = nameOf(pid)
		}
	}
	d, err := os.Open("/proc")
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	others := map[int]bool{}
	for again := true; again; { // a child may stand before its parent
		again = false
		for _, name := range names {
			pid, err := strconv.Atoi(name)
			if err != nil || f.alive[pid] != nil || f.strangers[pid] || pid == f.self {
				continue
			}
			fields := stat(pid)
			if fields == nil || fields[0] == "Z" {
				continue
			}
			parent, _ := strconv.Atoi(fields[1])
			if parent == f.self || f.alive[parent] != nil {
				f.alive[pid] = &processIn{process{pid, fields[19]}, nameOf(pid)}
				again = true
			} else {
				others[pid] = true
			}
		}
	}
	for pid := range others {
		f.strangers[pid] = f.alive[pid] == nil
	}
}

// named returns the members under one of the names.
func (f *family) named(name string) (list []process) {
	for _, p := range f.alive {
		if p.name == name {
			list = append(list, p.process)
		}
	}
	return list
}

// left complains of members that live.
func (f *family) left() error {
	f.look()
	for _, p := range f.alive {
		return fmt.Errorf("process %d lives: %s", p.pid, p.name)
	}
	return nil
}

// Names of the processes of a sandbox.
const (
	cliProcess      = "cutout"
	helperProcess   = "cutout-source"
	refreshProcess  = "cutout-source-refresh" // the helper later, between two values
	keeperProcess   = "cutout-keeper"
	launcherProcess = "cutout-launcher"
	cageProcess     = "cutout-cage"
	machineProcess  = "qemu"
)

var processNames = []string{cliProcess, helperProcess, refreshProcess, keeperProcess, launcherProcess, cageProcess, machineProcess}

// nameOf is the first argument of a process, short.
func nameOf(pid int) string {
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	name, _, _ := strings.Cut(string(cmdline), "\x00")
	name = filepath.Base(name)
	if strings.HasPrefix(name, "qemu") {
		return machineProcess
	}
	return name
}

// A sight is what /proc shows of a process.
type sight struct {
	pid     int
	environ string
	status  map[string]string
	private bool   // its memory is closed to its own user
	net     string // its network namespace
}

// watching begins to watch and returns what ends it.
func (f *family) watching(t *testing.T, seen map[string]sight, canaries ...*canary) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		f.watch(t, end, seen, canaries...)
		close(ended)
	}()
	return func() {
		close(end)
		<-ended
	}
}

// watch looks at the family until stop is closed, and notes in seen how each
// process looks under each of its names, first and then again and again: the
// canaries are nowhere in what /proc shows of anybody, but for the environment
// of the CLI, which is its user's.
func (f *family) watch(t *testing.T, stop <-chan struct{}, seen map[string]sight, canaries ...*canary) {
	latest := map[int]string{}
	for round := 0; ; round++ {
		f.look()
		for pid, p := range f.alive {
			if latest[pid] == p.name && round%50 != 0 { // or those that live for a moment are missed
				continue
			}
			s, shown := see(pid)
			if nameOf(pid) != p.name { // it became another program meanwhile
				continue
			}
			seen[p.name], latest[pid] = s, p.name
			if p.name != cliProcess { // also a child that has not become another program yet
				shown["environ"] = s.environ
			}
			for what, text := range shown {
				for _, c := range canaries {
					c.check(t, what+" of "+p.name, strings.NewReader(text))
				}
			}
		}
		select {
		case <-stop:
			if round%50 == 0 {
				return
			}
		default:
		}
	}
}

// see reads what /proc shows of a process.
func see(pid int) (s sight, shown map[string]string) {
	proc := fmt.Sprintf("/proc/%d/", pid)
	shown = map[string]string{"descriptors": strings.Join(descriptors(pid), "\n")}
	for _, name := range []string{"cmdline", "environ", "maps", "status"} {
		data, _ := os.ReadFile(proc + name) // gone meanwhile, or another user's
		shown[name] = string(data)
	}
	s = sight{pid: pid, environ: shown["environ"], status: map[string]string{}}
	delete(shown, "environ")
	for line := range strings.Lines(shown["status"]) {
		field, value, _ := strings.Cut(line, ":")
		s.status[field] = strings.TrimSpace(value)
	}
	info, err := os.Stat(proc + "mem")
	s.private = err == nil && info.Sys().(*syscall.Stat_t).Uid == 0 && !strings.HasPrefix(s.status["Uid"], "0\t")
	s.net, _ = os.Readlink(proc + "ns/net")
	return s, shown
}

// checkSights checks who was seen of a sandbox whose values are refreshed,
// while it started and ran, as an ordinary user's.
func checkSights(t *testing.T, seen map[string]sight) {
	t.Helper()
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	const none = "0000000000000000"
	const users = "its user's, without what is secret"
	for _, who := range []struct {
		name     string
		environ  string // its environment
		private  bool   // holds or has held a value
		filtered string // the mode of its filter of system calls
		confined bool   // gains no privileges
		apart    bool   // has no network
	}{
		{name: cliProcess, environ: users, private: true, filtered: "0"},
		{name: helperProcess, environ: users, filtered: "0"}, // dies early, or becomes:
		{name: refreshProcess, environ: users, private: true, filtered: "0"},
		{name: keeperProcess, environ: keeper.RuntimeSettings + "\x00", private: true, confined: true, filtered: "2"},
		{name: launcherProcess, confined: true, filtered: "0"},
		{name: cageProcess, confined: true},
		{name: machineProcess, confined: true, filtered: "2", apart: true},
	} {
		s, ok := seen[who.name]
		if !ok {
			t.Errorf("%s was not seen", who.name)
			continue
		}
		if who.environ == users && s.environ == "" || who.environ != users && s.environ != who.environ {
			t.Errorf("%s has the environment %q", who.name, s.environ)
		}
		if who.private && !s.private {
			t.Errorf("the memory of %s is open to its user", who.name)
		}
		if who.filtered != "" && s.status["Seccomp"] != who.filtered {
			t.Errorf("%s has filters in mode %s, want %s", who.name, s.status["Seccomp"], who.filtered)
		}
		if who.confined && s.status["NoNewPrivs"] != "1" {
			t.Errorf("%s can gain privileges", who.name)
		}
		if (s.net != own) != who.apart && who.name != cageProcess {
			t.Errorf("%s is in the network namespace %s, this process in %s", who.name, s.net, own)
		}
		if s.status["CapEff"] != none && who.name != cageProcess { // which is root of its namespaces, and builds the cage
			t.Errorf("%s has capabilities: %s", who.name, s.status["CapEff"])
		}
	}
}
