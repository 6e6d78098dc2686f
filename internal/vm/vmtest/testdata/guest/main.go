// Guest is the init of the tests that need a machine and no agent: it loads
// the modules, says hello on the control port, and obeys one-word lines.
package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		os.WriteFile("/dev/ttyS0", []byte("guest: "+err.Error()+"\n"), 0)
	}
	unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

func run() error {
	unix.Mount("proc", "/proc", "proc", 0, "")
	unix.Mount("sysfs", "/sys", "sysfs", 0, "")
	unix.Mount("devtmpfs", "/dev", "devtmpfs", 0, "")
	cmdline, _ := os.ReadFile("/proc/cmdline")
	if strings.Contains(string(cmdline), "test.reset") {
		return nil
	}
	if strings.Contains(string(cmdline), "test.panic") {
		os.Exit(1)
	}
	order, err := os.ReadFile("/mods/order")
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(order)) {
		f, err := os.Open("/mods/" + name)
		if err != nil {
			return err
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	port, err := openPort()
	if err != nil {
		return err
	}
	if strings.Contains(string(cmdline), "test.silent") {
		time.Sleep(time.Hour)
	}
	fmt.Fprintln(port, "hello")
	kept := ""
	for in := bufio.NewScanner(port); in.Scan(); {
		word, arg, _ := strings.Cut(in.Text(), " ")
		switch word {
		case "ping":
			fmt.Fprintln(port, "pong")
		case "keep":
			kept = arg
			fmt.Fprintln(port, "ok")
		case "kept":
			fmt.Fprintln(port, kept)
		case "uptime":
			text, _ := os.ReadFile("/proc/uptime")
			fmt.Fprintln(port, strings.TrimSpace(string(text)))
		case "cmdline":
			fmt.Fprintln(port, strings.TrimSpace(string(cmdline)))
		case "disks":
			fmt.Fprintln(port, disks())
		case "links":
			names, _ := filepath.Glob("/sys/class/net/*/address")
			for i, n := range names {
				text, _ := os.ReadFile(n)
				names[i] = filepath.Base(filepath.Dir(n)) + "=" + strings.TrimSpace(string(text))
			}
			fmt.Fprintln(port, strings.Join(names, " "))
		case "read":
			text, err := os.ReadFile(arg)
			fmt.Fprintf(port, "%q %v\n", text[:min(len(text), 64)], err)
		case "console":
			os.WriteFile("/dev/ttyS0", []byte(arg+"\n"), 0)
			fmt.Fprintln(port, "ok")
		case "down":
			return nil
		}
	}
	return in(port)
}

func in(*os.File) error { return fmt.Errorf("the control port was closed") }

// disks lists the block devices as name=serial:size.
func disks() string {
	var list []string
	names, _ := filepath.Glob("/sys/block/vd*")
	for _, n := range names {
		serial, _ := os.ReadFile(n + "/serial")
		size, _ := os.ReadFile(n + "/size")
		ro, _ := os.ReadFile(n + "/ro")
		list = append(list, fmt.Sprintf("%s=%s:%s:%s", filepath.Base(n), serial, strings.TrimSpace(string(size)), strings.TrimSpace(string(ro))))
	}
	return strings.Join(list, " ")
}

func openPort() (*os.File, error) {
	for range 500 {
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, n := range names {
			text, _ := os.ReadFile(n)
			if strings.TrimSpace(string(text)) == "cutout" {
				return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(n)), os.O_RDWR, 0)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, fmt.Errorf("no control port")
}
