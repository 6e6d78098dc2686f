//go:build linux

package boundary

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// asWorkload takes the process over if it is to be something else than a
// test.
func asWorkload(args []string) bool {
	switch filepath.Base(args[0]) {
	case asUser:
		fmt.Fprintln(os.Stderr, becomeUser(args))
		os.Exit(99)
	case "workload":
		if len(args) == 3 && args[1] == "--connect" {
			fmt.Println(stays(args[2]))
			return true
		}
		if len(args) > 1 && args[1] == "--named" {
			var l loot
			l.named(args[2:])
			json.NewEncoder(os.Stdout).Encode(l)
			return true
		}
		json.NewEncoder(os.Stdout).Encode(attack(args[1:]))
		return true
	}
	return false
}

// stays connects to a socket and says if the other side lets it stay.
func stays(path string) string {
	c, err := net.Dial("unix", path)
	if err != nil {
		return ""
	}
	c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	return "it stays"
}

// A loot is what a hostile command found.
type loot struct {
	Processes []string // names of those that it sees, less its own
	Values    []string // where something that looks like the value stands
	Traced    []string // processes that it could trace
	Sockets   []string // that answered
	Seen      []string // what it should not see of the files it was told of
	Gained    []string // privileges
}

// attack looks for the value, whose beginning it knows, wherever a command
// can look, and at what args name.
func attack(args []string) loot {
	var l loot
	paths := l.named(args)
	l.processes()
	l.sockets()
	l.privileges(paths)
	return l
}

// named looks at files and directories that must not be readable, sockets, as
// unix:PATH or tcp:ADDR, and processes, as proc:DIRECTORY.
func (l *loot) named(args []string) (paths []string) {
	for _, arg := range args {
		kind, at, _ := strings.Cut(arg, ":")
		switch kind {
		case "unix", "tcp":
			l.socket(kind, at)
		case "proc":
			l.process(at)
		default:
			paths = append(paths, arg)
		}
	}
	l.files(paths)
	return paths
}

// mark is how values begin; in two parts, so that this program's own memory
// has none.
func mark() []byte { return []byte("sk-" + strings.ToLower("LIVE-")) }

func looksLikeValue(b []byte) bool {
	for {
		i := bytes.Index(b, mark())
		if i < 0 {
			return false
		}
		b = b[i+len(mark()):]
		if len(b) >= 30 && len(bytes.Trim(b[:30], "0123456789abcdef")) == 0 {
			return true
		}
	}
}

// processes reads what every process shows, and traces it.
func (l *loot) processes() {
	procs := []string{"/proc"}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "proc" && f[1] != "/proc" {
			procs = append(procs, f[1])
		}
	}
	for _, proc := range procs {
		dirs, _ := filepath.Glob(proc + "/[0-9]*")
		for _, dir := range dirs {
			if filepath.Base(dir) != strconv.Itoa(os.Getpid()) {
				name, _ := os.ReadFile(dir + "/comm")
				l.Processes = append(l.Processes, strings.TrimSpace(string(name)))
			}
			l.process(dir)
		}
	}
}

// process reads what one process shows, and traces it if it is another.
func (l *loot) process(dir string) {
	for _, file := range []string{"environ", "cmdline"} {
		if text, err := os.ReadFile(filepath.Join(dir, file)); err == nil && looksLikeValue(text) {
			l.Values = append(l.Values, dir+"/"+file)
		}
	}
	pid, _ := strconv.Atoi(filepath.Base(dir))
	if pid == os.Getpid() {
		return
	}
	l.trace(pid)
	if memoryHasValue(dir) {
		l.Values = append(l.Values, dir+"/mem")
	}
}

func (l *loot) trace(pid int) {
	if unix.PtraceSeize(pid) == nil {
		l.Traced = append(l.Traced, strconv.Itoa(pid))
		unix.PtraceDetach(pid)
	}
	// Of an address where nothing is: who may not read is told EPERM.
	local, remote := []unix.Iovec{{Base: new(byte), Len: 1}}, []unix.RemoteIovec{{Base: 8, Len: 1}}
	if _, err := unix.ProcessVMReadv(pid, local, remote, 0); err == nil || errors.Is(err, unix.EFAULT) {
		l.Traced = append(l.Traced, fmt.Sprintf("memory of %d", pid))
	}
	if fd, err := unix.PidfdOpen(pid, 0); err == nil {
		if stolen, err := unix.PidfdGetfd(fd, 3, 0); err == nil {
			l.Traced = append(l.Traced, fmt.Sprintf("descriptor 3 of %d", pid))
			unix.Close(stolen)
		}
		unix.Close(fd)
	}
}

func memoryHasValue(dir string) bool {
	maps, err := os.Open(dir + "/maps")
	if err != nil {
		return false
	}
	defer maps.Close()
	mem, err := os.Open(dir + "/mem")
	if err != nil {
		return false
	}
	defer mem.Close()
	for s := bufio.NewScanner(maps); s.Scan(); {
		var from, to int64
		if n, _ := fmt.Sscanf(s.Text(), "%x-%x", &from, &to); n != 2 || to-from > 1<<30 {
			continue
		}
		b := make([]byte, to-from)
		n, _ := mem.ReadAt(b, from)
		if looksLikeValue(b[:n]) {
			return true
		}
	}
	return false
}

// sockets connects to every socket that can be seen, and asks it what a
// keeper would answer.
func (l *loot) sockets() {
	var paths []string
	filepath.WalkDir("/", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil
		case path == "/proc" || path == "/sys":
			return filepath.SkipDir
		case d.Type()&fs.ModeSocket != 0:
			paths = append(paths, path)
		}
		return nil
	})
	table, _ := os.ReadFile("/proc/net/unix")
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 7 && f[7] != "Path" {
			paths = append(paths, f[7])
		}
	}
	for _, path := range paths {
		l.socket("unix", path)
	}
}

func (l *loot) socket(network, addr string) {
	if text := ask(network, addr); text != "" {
		l.Sockets = append(l.Sockets, addr+": "+text)
	}
}

// ask returns how a server answers, if it does.
func ask(network, addr string) string {
	c, err := net.DialTimeout(network, addr, time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	io.WriteString(c, "GET /v1/sandbox HTTP/1.1\r\nHost: keeper\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return ""
	}
	body, _ := io.ReadAll(resp.Body)
	return resp.Status + " " + string(body)
}

func (l *loot) files(paths []string) {
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		if info.IsDir() {
			list, _ := os.ReadDir(path)
			for _, e := range list {
				l.Seen = append(l.Seen, filepath.Join(path, e.Name()))
			}
			continue
		}
		if text, _ := os.ReadFile(path); len(text) > 0 {
			l.Seen = append(l.Seen, path)
		}
	}
}

// privileges tries to get more than it has.
func (l *loot) privileges(hidden []string) {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		if strings.HasPrefix(name, "Cap") && strings.Trim(value, "0") != "" || name == "NoNewPrivs" && value != "1" {
			l.Gained = append(l.Gained, name+" "+value)
		}
	}
	if fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); err == nil {
		unix.Close(fd)
		l.Gained = append(l.Gained, "a packet socket")
	}
	if err := syscall.Setuid(0); err == nil {
		l.Gained = append(l.Gained, "user 0")
	}
	// Namespaces of its own, in which it is root, and takes covers off.
	script := "ip addr flush dev eth0 2>/dev/null && echo flushed; for p in /run /tmp /proc"
	for _, h := range hidden {
		script += " '" + h + "'"
	}
	script += "; do umount -l $p 2>/dev/null && echo uncovered $p; done"
	out, _ := exec.Command("unshare", "-r", "-m", "sh", "-c", script).Output()
	for line := range strings.Lines(string(out)) {
		l.Gained = append(l.Gained, strings.TrimSpace(line))
	}
}
