// Command tool is all that the root file system of the tests holds: a few
// commands, each a first argument.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	var err error
	switch args := os.Args[1:]; args[0] {
	case "exit":
		code, _ := strconv.Atoi(args[1])
		os.Exit(code)
	case "cat":
		if len(args) == 1 {
			_, err = io.Copy(os.Stdout, os.Stdin)
		}
		for _, name := range args[1:] {
			var b []byte
			if b, err = os.ReadFile(name); err != nil {
				break
			}
			os.Stdout.Write(b)
		}
	case "write":
		err = os.WriteFile(args[1], []byte(args[2]), 0o644)
	case "rename":
		err = os.Rename(args[1], args[2])
	case "append":
		var f *os.File
		if f, err = os.OpenFile(args[1], os.O_WRONLY|os.O_APPEND, 0); err == nil {
			_, err = f.WriteString(args[2])
		}
	case "env":
		env := os.Environ()
		sort.Strings(env)
		fmt.Println(strings.Join(env, "\n"))
	case "id":
		groups, _ := os.Getgroups()
		fmt.Println(os.Getuid(), os.Getgid(), groups)
	case "time":
		fmt.Println(time.Now().Unix())
	case "hostname":
		name, _ := os.Hostname()
		fmt.Println(name)
	case "pwd":
		dir, _ := os.Getwd()
		fmt.Println(dir)
	case "size":
		err = size()
	case "trap":
		got := make(chan os.Signal, 1)
		signal.Notify(got, syscall.SIGINT)
		fmt.Println("ready")
		<-got
		os.Exit(5)
	case "sleep":
		fmt.Println("ready")
		time.Sleep(time.Minute)
	case "orphan": // leaves a child behind that outlives it
		err = orphan()
	case "zombies":
		err = zombies()
	case "addresses":
		err = addresses()
	case "stat":
		for _, name := range args[1:] {
			fi, e := os.Lstat(name)
			if e != nil {
				fmt.Println(name, "missing")
				continue
			}
			fmt.Println(name, fi.Mode())
		}
	case "open":
		var f *os.File
		if f, err = os.OpenFile(args[1], os.O_RDWR, 0); err == nil {
			f.Close()
		}
	case "flood": // signals the first process may not die of
		for sig := 1; sig < 32; sig++ {
			if sig != 11 && sig != 7 && sig != 8 && sig != 4 && sig != 5 {
				syscall.Kill(1, syscall.Signal(sig))
			}
		}
	default:
		err = errors.New("unknown command")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func size() error {
	for {
		ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		if err != nil {
			return err
		}
		fmt.Println(ws.Row, ws.Col)
		var b [1]byte
		if _, err := os.Stdin.Read(b[:]); err != nil || b[0] == 'q' {
			return err
		}
	}
}

func orphan() error {
	_, err := syscall.ForkExec("/bin/tool", []string{"tool", "sleep"}, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	fmt.Println("parent done")
	return err
}

// zombies makes orphans that end at once, and counts what is not reaped.
func zombies() error {
	for range 5 {
		pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			return errno
		}
		if pid == 0 {
			syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
		syscall.Wait4(int(pid), nil, 0, nil)
	}
	for range 100 {
		time.Sleep(10 * time.Millisecond)
		n := 0
		procs, _ := os.ReadDir("/proc")
		for _, p := range procs {
			b, err := os.ReadFile("/proc/" + p.Name() + "/stat")
			if err == nil && bytes.Contains(b, []byte(") Z ")) {
				n++
			}
		}
		if n == 0 {
			return nil
		}
	}
	return errors.New("zombies are left")
}

// addresses lists addresses, and flags of those that are not usable yet.
func addresses() error {
	list, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range list {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if !strings.HasPrefix(a.String(), "fe80:") {
				fmt.Println(i.Name, i.MTU, a)
			}
		}
	}
	six, err := os.ReadFile("/proc/net/if_inet6")
	for line := range strings.Lines(string(six)) {
		f := strings.Fields(line)
		if flags, _ := strconv.ParseUint(f[4], 16, 8); flags&unix.IFA_F_TENTATIVE != 0 {
			fmt.Println("tentative", f[0])
		}
	}
	return err
}
