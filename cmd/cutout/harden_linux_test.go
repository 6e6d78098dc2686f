package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The environment of cutout holds values. Others of the same uid must read
// neither it nor a core, and what the caller has open is none of the
// business of the processes that cutout starts.
func TestProcessIsHardened(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "ca.pem")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	left, theirs, err := os.Pipe() // as a shell's exec 9<file
	if err != nil {
		t.Fatal(err)
	}
	defer left.Close()
	defer theirs.Close()

	// It stops where it opens the pipe for reading, when flags are parsed.
	cmd := exec.Command("/proc/self/exe", "run", "--tls-upstream-ca-cert", fifo)
	cmd.Args[0] = "cutout"
	cmd.Env = []string{"CUTOUT_HOME=" + dir}
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	opened := make(chan *os.File, 1)
	go func() {
		f, _ := os.OpenFile(fifo, os.O_WRONLY, 0)
		opened <- f
	}()
	select {
	case f := <-opened:
		defer f.Close()
	case <-time.After(time.Minute):
		t.Fatal("it did not come to reading the certificates")
	}

	proc := filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid))
	limits, err := os.ReadFile(filepath.Join(proc, "limits"))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`Max core file size +0 +0 `).Match(limits) {
		t.Error("it may dump core")
	}
	if os.Getuid() != 0 { // to root everything belongs and is open
		if info, err := os.Stat(filepath.Join(proc, "environ")); err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
			t.Errorf("its environment belongs to the caller: %v", err)
		}
		if f, err := os.Open(filepath.Join(proc, "environ")); err == nil {
			text, _ := io.ReadAll(f)
			f.Close()
			t.Errorf("%d bytes of its environment can be read", len(text))
		}
		return // what it has open only root can see
	}
	info, err := os.ReadFile(filepath.Join(proc, "fdinfo", "3"))
	if err != nil {
		t.Fatal(err)
	}
	flags := regexp.MustCompile(`flags:\s+([0-7]+)`).FindSubmatch(info)
	if flags == nil || len(flags[1]) < 7 || (flags[1][len(flags[1])-7]-'0')&2 == 0 {
		t.Errorf("what the caller has open goes on to its children: %s", info)
	}
}
