//go:build linux

package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/frame"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
	"github.com/cutoutdev/cutout/internal/testnet/boundary"
)

// A guest is a network namespace whose one interface ends in the boundary.
// Programs of this machine run in it with the trust store, the resolver and
// the environment that they would find in a sandbox.
type guest struct {
	*boundary.Boundary
	dir string // of the guest's own
	pid int    // whose namespaces they are
	env []string
}

// asGuest is in the environment of the process that holds the namespaces.
const asGuest = "CUTOUT_INTEROP_GUEST"

// The trust store and the resolver's file, which the guest has its own of.
const (
	bundle     = "/etc/ssl/certs/ca-certificates.crt"
	resolvConf = "/etc/resolv.conf"
)

// newGuest starts a boundary, which change may alter, and a guest behind it.
func newGuest(t *testing.T, change func(*boundary.Boundary)) *guest {
	t.Helper()
	g := &guest{dir: t.TempDir()}
	boundary.Start(t, "", func(b *boundary.Boundary) {
		g.Boundary = b
		if change != nil {
			change(b)
		}
		b.Plug = func(cable net.Conn, _ netstack.Config) { g.plug(t, cable) }
	})
	return g
}

func (g *guest) plug(t *testing.T, cable net.Conn) {
	t.Helper()
	ca := filepath.Join(g.dir, "ca.pem")
	resolver := filepath.Join(g.dir, "resolv.conf")
	if err := errors.Join(
		os.WriteFile(ca, g.Leafs.CertPEM(), 0o644),
		os.WriteFile(resolver, fmt.Appendf(nil, "nameserver %s\n", netstacktest.Gateway4), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	end, err := cable.(*net.UnixConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), asGuest+"="+g.dir)
	cmd.ExtraFiles = []*os.File{end}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	ready, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if _, err := io.ReadFull(ready, make([]byte, 1)); err != nil {
		t.Fatalf("the guest did not start: %v", err)
	}
	g.pid = cmd.Process.Pid
	g.env = []string{
		"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + g.dir, "API_KEY=" + boundary.Placeholder,
		"SSL_CERT_FILE=" + ca, "CURL_CA_BUNDLE=" + ca, "REQUESTS_CA_BUNDLE=" + ca, "GIT_SSL_CAINFO=" + ca,
		"NODE_EXTRA_CA_CERTS=" + ca, "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C.UTF-8",
	}
}

// command prepares a program in the guest; it is killed after 30 s.
func (g *guest) command(name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	g.T.Cleanup(cancel)
	ns := fmt.Sprintf("/proc/%d/ns/", g.pid)
	enter := []string{"--net=" + ns + "net", "--mount=" + ns + "mnt", "--", "/bin/sh", "-c", `cd "$0" && exec "$@"`, g.dir, name}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	cmd.Env, cmd.WaitDelay = g.env, time.Second
	return cmd
}

// run runs a program in the guest and returns what it printed on both
// streams.
func (g *guest) run(stdin string, name string, args ...string) (string, error) {
	cmd := g.command(name, args...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	err := cmd.Run()
	return out.String(), err
}

// beGuest is the process that holds the guest's namespaces: it moves frames
// between its interface and the cable, descriptor 3.
func beGuest(dir string) error {
	tap, err := configure(dir)
	if err != nil {
		return err
	}
	f := os.NewFile(3, "cable")
	cable, err := net.FileConn(f)
	if err != nil {
		return err
	}
	f.Close()
	os.Stdout.WriteString("+")
	var both sync.WaitGroup
	both.Go(func() { toCable(cable, tap) })
	both.Go(func() { toTap(tap, cable) })
	both.Wait()
	return nil
}

func toCable(cable net.Conn, tap *os.File) {
	defer cable.Close()
	w, buf := frame.NewWriter(cable), make([]byte, 1<<17)
	for {
		n, err := tap.Read(buf)
		if err != nil || w.WriteFrame(buf[:n]) != nil {
			return
		}
	}
}

func toTap(tap *os.File, cable net.Conn) {
	defer tap.Close()
	for r := frame.NewReader(cable); ; {
		b, err := r.Next()
		if err != nil {
			return
		}
		tap.Write(b)
	}
}

// configure makes the interface, the routes and the two files.
func configure(dir string) (*os.File, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	for from, to := range map[string]string{"ca.pem": bundle, "resolv.conf": resolvConf} {
		if err := unix.Mount(filepath.Join(dir, from), to, "", unix.MS_BIND, ""); err != nil {
			return nil, fmt.Errorf("put %s in place: %w", to, err)
		}
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq("eth0")
	if err != nil {
		return nil, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return nil, fmt.Errorf("make interface: %w", err)
	}
	for _, line := range []string{
		"link set lo up",
		fmt.Sprintf("link set eth0 address %s mtu %d", netstack.DefaultGuestMAC, netstack.DefaultMTU),
		fmt.Sprintf("address add %s dev eth0", netstacktest.Guest4),
		fmt.Sprintf("address add %s dev eth0 nodad", netstacktest.Guest6),
		"link set eth0 up",
		fmt.Sprintf("route add default via %s", netstacktest.Gateway4),
		fmt.Sprintf("route add default via %s", netstacktest.Gateway6),
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	return os.NewFile(uintptr(fd), "tap"), nil
}
