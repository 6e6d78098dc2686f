//go:build linux

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/testnet"
	"github.com/cutoutdev/cutout/internal/testnet/netns"
)

// An internet is two network namespaces with a cable between them: one in
// which cutout runs, and one that has public addresses.
type internet struct {
	t           *testing.T
	host, world *netns.Namespace
	dns         *testnet.DNS
}

// The addresses of the world.
var (
	world4 = netip.MustParseAddr("93.184.216.34")
	world6 = netip.MustParseAddr("2606:2800:220:1::34")
)

// beyond6 is where the host has no way: it has a default route for IPv4 alone.
var beyond6 = netip.MustParseAddr("2a00:1450:4001::34")

// newInternet makes one in which names have the world's addresses, and
// beyond.example.test beyond6 for its IPv6.
func newInternet(t *testing.T, names ...string) *internet {
	t.Helper()
	n := &internet{t: t, host: namespace(t), world: namespace(t)}
	n.run(n.host, "ip", "link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", fmt.Sprint(n.world.PID))
	for _, end := range []struct {
		ns           *netns.Namespace
		name, v4, v6 string
	}{
		{n.host, "up0", "93.184.216.1/24", "2606:2800:220:1::1/64"},
		{n.world, "down0", world4.String() + "/24", world6.String() + "/64"},
	} {
		n.run(end.ns, "ip", "link", "set", "lo", "up")
		n.run(end.ns, "ip", "link", "set", end.name, "up")
		n.run(end.ns, "ip", "address", "add", end.v4, "dev", end.name)
		n.run(end.ns, "ip", "address", "add", end.v6, "dev", end.name, "nodad")
	}
	n.run(n.host, "ip", "route", "add", "default", "via", world4.String())
	// As distributions do, and new namespaces do not.
	n.run(n.host, "sh", "-c", "echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range")
	zone := map[string]testnet.Record{"beyond.example.test": {Addrs: []netip.Addr{world4, beyond6}}}
	for _, name := range names {
		zone[name] = testnet.Record{Addrs: []netip.Addr{world4, world6}}
	}
	n.in(n.host, func() (err error) {
		n.dns, err = testnet.StartDNS(zone)
		return err
	})
	t.Cleanup(func() { n.dns.Close() })
	return n
}

// namespace makes a network namespace of the test's own.
func namespace(t *testing.T) *netns.Namespace {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// in calls f in a namespace.
func (n *internet) in(ns *netns.Namespace, f func() error) {
	n.t.Helper()
	if err := ns.In(f); err != nil {
		n.t.Fatal(err)
	}
}

// run runs a program in a namespace.
func (n *internet) run(ns *netns.Namespace, args ...string) string {
	n.t.Helper()
	out, err := ns.Run(args...)
	if err != nil {
		n.t.Fatal(err)
	}
	return out
}

// serve starts a server in the world and waits until it listens at port.
func (n *internet) serve(port uint16, args ...string) {
	n.t.Helper()
	var said strings.Builder
	server := n.world.Command(args...)
	server.Stdout, server.Stderr = &said, &said
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := server.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		server.Process.Signal(os.Interrupt)
		stop := time.AfterFunc(5*time.Second, func() { server.Process.Kill() })
		server.Wait()
		stop.Stop()
	})
	listening := fmt.Sprintf(":%04X 0", port) // in hexadecimal, and any peer
	for range 200 {
		if strings.Contains(n.run(n.world, "cat", "/proc/net/tcp", "/proc/net/tcp6"), listening) {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	n.t.Fatalf("%s does not listen: %s", args[0], said.String())
}
