package netstack_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/frame"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
)

// slowDNS answers when its context ends.
type slowDNS struct{}

func (slowDNS) Answer(ctx context.Context, _ []byte, _ bool) []byte { <-ctx.Done(); return nil }
func (slowDNS) ServeConn(ctx context.Context, _ net.Conn)           { <-ctx.Done() }

// Close ends connections in every state and leaves no goroutine and no file
// behind.
func TestCloseReleasesEverything(t *testing.T) {
	before, filesBefore := runtime.NumGoroutine(), openFiles(t)
	for range 3 {
		accepted := make(chan struct{}, 8)
		cfg := netstack.Config{
			Guest4: netstacktest.Guest4, Gateway4: netstacktest.Gateway4, DNS: slowDNS{},
			TCP: func(ctx context.Context, r *netstack.TCPRequest) {
				switch r.Dst.Port() {
				case 1: // undecided
					accepted <- struct{}{}
					<-ctx.Done()
				case 2: // accepted and never read
					r.Accept()
					accepted <- struct{}{}
				case 3: // writes more than the guest takes
					c, err := r.Accept()
					accepted <- struct{}{}
					if err == nil {
						io.Copy(c, zeros{})
					}
				}
			},
		}
		boundary, end := netstacktest.Cable(t)
		cfg.Link = frame.NewStream(boundary)
		s, err := netstack.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		g, err := netstacktest.New(end, cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		go g.Dial(ctx, "tcp", at(server4.Addr(), 1))
		open := []io.Closer{}
		for _, port := range []uint16{2, 3, 53} {
			c, err := g.Dial(ctx, "tcp", at(server4.Addr(), port))
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, c)
		}
		u, _ := g.Dial(ctx, "udp", at(server4.Addr(), 53))
		u.Write([]byte("q"))
		// half open: the guest's stack answers the SYN-ACK by RST, so ask from
		// an address that has no stack behind it: nothing comes back
		g.SendFrame(g.Ethernet(netstacktest.TCP(at(guest4, 999), at(server4.Addr(), 2), 1, 0, syn)))
		for range 3 {
			<-accepted
		}
		done := make(chan struct{})
		go func() { s.Close(); s.Close(); close(done) }()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatalf("Close hangs:\n%s", stacks())
		}
		for _, c := range open {
			c.Close()
		}
		u.Close()
		cancel()
		g.Close()
	}
	deadline := time.Now().Add(15 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before:\n%s", n, before, stacks())
	}
	if n := openFiles(t); n > filesBefore {
		t.Errorf("%d open files, %d before", n, filesBefore)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func stacks() string {
	b := make([]byte, 1<<20)
	text := string(b[:runtime.Stack(b, true)])
	return text[:min(len(text), 8000)]
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		target, _ := os.Readlink("/proc/self/fd/" + e.Name())
		if strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

func TestConfig(t *testing.T) {
	good := func(t *testing.T) netstack.Config {
		link, _ := netstacktest.Cable(t)
		return netstack.Config{
			Link: frame.NewStream(link), TCP: refuse, Guest4: netstacktest.Guest4, Gateway4: netstacktest.Gateway4,
			Guest6: netstacktest.Guest6, Gateway6: netstacktest.Gateway6,
		}
	}
	bad := map[string]func(c *netstack.Config){
		"no hook":              func(c *netstack.Config) { c.TCP = nil },
		"no address":           func(c *netstack.Config) { c.Guest4, c.Guest6 = netip.Prefix{}, netip.Prefix{} },
		"gateway elsewhere":    func(c *netstack.Config) { c.Gateway4 = server4.Addr() },
		"gateway is the guest": func(c *netstack.Config) { c.Gateway6 = c.Guest6.Addr() },
		"families swapped":     func(c *netstack.Config) { c.Guest4, c.Gateway4 = c.Guest6, c.Gateway6 },
		"small MTU":            func(c *netstack.Config) { c.MTU = 576 },
		"large MTU":            func(c *netstack.Config) { c.MTU = 70000 },
		"short MAC":            func(c *netstack.Config) { c.GuestMAC = net.HardwareAddr{2} },
	}
	for name, change := range bad {
		t.Run(name, func(t *testing.T) {
			c := good(t)
			change(&c)
			if s, err := netstack.New(c); err == nil {
				s.Close()
				t.Error("accepted")
			}
			if err := c.Link.WriteFrames(1, func(int) [][]byte { return [][]byte{{0}} }); err == nil {
				t.Error("the link was left open")
			}
		})
	}
	c := good(t)
	s, err := netstack.New(c)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}
