package tap

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/rtnetlink"
)

// Device is the kernel's way to TAP devices.
const Device = "/dev/net/tun"

// Create makes an interface in the calling thread's network namespace. The
// file does not block.
func Create(name string) (*os.File, error) {
	if _, err := net.InterfaceByName(name); err == nil {
		return nil, fmt.Errorf("make interface %s: there is one of that name", name)
	}
	fd, err := unix.Open(Device, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", Device, err)
	}
	if err := create(fd, name); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make interface %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), "tap"), nil
}

func create(fd int, name string) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
}

// Configure brings the interface up, and the loopback with it.
func Configure(name string, mac net.HardwareAddr, mtu int, addrs []Address) error {
	index := func(name string) (int, error) {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return 0, fmt.Errorf("find interface %s: %w", name, err)
		}
		return i.Index, nil
	}
	own, err := index(name)
	if err != nil {
		return err
	}
	up := &rtnetlink.Batch{}
	if lo, err := index("lo"); err == nil {
		up.Up(lo, 0)
	}
	up.HardwareAddress(own, mac)
	up.Up(own, mtu)
	if err := up.Send(); err != nil {
		return fmt.Errorf("bring interface %s up: %w", name, err)
	}
	for _, a := range addrs {
		b := &rtnetlink.Batch{New: true}
		b.Address(own, a.Prefix)
		if a.Route {
			b.DefaultRoute(own, a.Gateway)
		}
		err := b.Send()
		if a.Prefix.Addr().Is6() && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT)) {
			continue // a host without IPv6
		}
		if err != nil {
			return fmt.Errorf("give interface %s its address and route: %w", name, err)
		}
	}
	return nil
}

// In calls f in another network namespace: that of a process, by its id, or
// that at a path.
func In(namespace string, f func() error) error {
	if pid, err := strconv.Atoi(namespace); err == nil {
		namespace = fmt.Sprintf("/proc/%d/ns/net", pid)
	}
	ns, err := os.Open(namespace)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace %s: %w", namespace, err)
			return
		}
		done <- f()
	}()
	return <-done
}
