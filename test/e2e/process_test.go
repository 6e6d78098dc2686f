package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cutoutdev/cutout/internal/keeper"
)

// checkProcesses looks at every process that the CLI has started through
// /proc: the value is in no argument, environment, mapping or descriptor; the
// keeper and the machine can gain nothing, and the machine is in namespaces of
// its own. The CLI's own environment is the user's.
func checkProcesses(t *testing.T, c *canary, b *box) {
	for i, p := range descendants(b.cmd.Process.Pid) {
		for _, name := range []string{"cmdline", "environ", "maps", "status", "limits"} {
			if i == 0 && name == "environ" {
				continue
			}
			path := fmt.Sprintf("/proc/%d/%s", p.pid, name)
			data, err := os.ReadFile(path)
			if err != nil {
				if os.Geteuid() == 0 {
					t.Errorf("read %s: %v", path, err)
				}
				continue
			}
			c.check(t, path, bytes.NewReader(data))
			if name == "environ" && len(data) > 0 && string(data) != keeper.RuntimeSettings+"\x00" {
				t.Errorf("%s has more than it needs: %q", path, data)
			}
		}
		for _, target := range descriptors(p.pid) {
			c.check(t, "the name of what a process has open", strings.NewReader(target))
		}
	}
	keeperPID, machine := b.pids()
	checkConfined(t, "the keeper", keeperPID)
	checkConfined(t, "the machine", machine)
	if os.Geteuid() != 0 {
		return
	}
	// Go's runtime follows the limits of its control group.
	ordinary := []string{"/dev/null", "/sys/fs/cgroup/", filepath.Join(sharedHome, "images"), filepath.Join(sharedHome, "snapshots")}
	checkFilesOpen(t, "the keeper", keeperPID, append(ordinary, b.home))
	checkFilesOpen(t, "the machine", machine, append(ordinary, filepath.Join(b.home, "sandboxes")))
	if got := status(t, machine, "CapEff"); got != "0000000000000000" {
		t.Errorf("the machine has capabilities %s", got)
	}
	for _, ns := range []string{"net", "pid", "user", "mnt", "ipc", "uts"} {
		theirs, err1 := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", machine, ns))
		ours, err2 := os.Readlink("/proc/self/ns/" + ns)
		if err1 != nil || err2 != nil || theirs == ours {
			t.Errorf("the machine's %s namespace is %s, the host's %s (%v, %v)", ns, theirs, ours, err1, err2)
		}
	}
}

// checkConfined checks that the process cannot gain privileges, that its
// system calls are filtered and that it leaves no core.
func checkConfined(t *testing.T, who string, pid int) {
	t.Helper()
	for field, want := range map[string]string{"NoNewPrivs": "1", "Seccomp": "2"} {
		if got := status(t, pid, field); got != want {
			t.Errorf("%s has %s %s, want %s", who, field, got, want)
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if os.Geteuid() == 0 && !slices.ContainsFunc(strings.Split(string(limits), "\n"), func(line string) bool {
		f := strings.Fields(line)
		return len(f) > 5 && f[1] == "core" && f[4] == "0" && f[5] == "0"
	}) {
		t.Errorf("%s may dump core: %v\n%s", who, err, limits)
	}
}

// checkUndumpable checks that what /proc shows of uid's process belongs to
// root, which is how a process looks that its own user may neither trace nor
// read.
func checkUndumpable(t *testing.T, who string, pid, uid int) {
	t.Helper()
	if got := strings.Fields(status(t, pid, "Uid")); uid == 0 || got[0] != fmt.Sprint(uid) {
		t.Fatalf("%s runs as %v, want %d", who, got, uid)
	}
	for _, name := range []string{"environ", "mem", "maps", "auxv"} {
		info, err := os.Stat(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
			t.Errorf("%s of %s belongs to its user: %v", name, who, err)
		}
	}
}

// status returns a field of /proc/PID/status.
func status(t *testing.T, pid int, field string) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("/proc/%d/status has no %s", pid, field)
	return ""
}

// descriptors returns what a process has open, none where only root may see.
func descriptors(pid int) []string {
	var out []string
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // the pattern is well formed
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil {
			out = append(out, target)
		}
	}
	return out
}

// checkFilesOpen checks that what a process has open of the file system is
// below one of the places.
func checkFilesOpen(t *testing.T, who string, pid int, places []string) {
	t.Helper()
	for _, target := range descriptors(pid) {
		if strings.HasPrefix(target, "/") && !slices.ContainsFunc(places, func(place string) bool { return strings.HasPrefix(target, place) }) {
			t.Errorf("%s has %s open", who, target)
		}
	}
}
