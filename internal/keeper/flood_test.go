//go:build linux

package keeper

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/frame"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
	"github.com/cutoutdev/cutout/internal/secret"
)

// TestFloodReleased: of a guest that opens more connections than it may have
// and fills some in both directions nothing is left when it has closed them.
func TestFloodReleased(t *testing.T) {
	const asked = 2400 // proxy's bound is 2048
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				if _, err := c.Read(make([]byte, 1)); err == nil {
					pour(c)
				}
			})
		}
	})
	defer serving.Wait()
	defer server.Close()
	b, guest := startPlugged(t, server.Addr().(*net.TCPAddr).AddrPort())
	guest.Buffers(8 << 10)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	to := netip.AddrPortFrom(b.plan.names["flood.example.test"][0], 9000)

	first, err := guest.Dial(ctx, "tcp", to) // what is made once stays
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	settled(func() bool { return len(b.conns.Flows()) == 0 })
	goroutines, sockets := runtime.NumGoroutine(), openSockets(t)

	var mu sync.Mutex
	var open []net.Conn
	var asking, pouring sync.WaitGroup
	for range 100 {
		asking.Go(func() {
			for range asked / 100 {
				c, err := guest.Dial(ctx, "tcp", to)
				if err != nil {
					continue
				}
				mu.Lock()
				open = append(open, c)
				mu.Unlock()
			}
		})
	}
	asking.Wait()
	if n := len(open); n < 2000 || n > 2048 || len(b.conns.Flows()) != n {
		t.Errorf("%d of %d connections, %d known", n, asked, len(b.conns.Flows()))
	}
	for i, c := range open {
		if i%16 == 0 {
			pouring.Go(func() { pour(c) })
		}
	}
	if !settled(func() bool { return moved(b) > 16<<20 }) {
		t.Error("little moved")
	}
	for _, c := range open {
		c.Close()
	}
	pouring.Wait()
	released := settled(func() bool {
		return len(b.conns.Flows()) == 0 && runtime.NumGoroutine() <= goroutines && openSockets(t) <= sockets && b.stack.Counters().TCPOpen == 0
	})
	if !released {
		text := make([]byte, 1<<20)
		t.Errorf("left: %d connections (%d of the stack), %d goroutines (%d before), %d sockets (%d before)\n%.8000s",
			len(b.conns.Flows()), b.stack.Counters().TCPOpen, runtime.NumGoroutine(), goroutines, openSockets(t), sockets, text[:runtime.Stack(text, true)])
	}
}

// startPlugged starts a boundary whose flood.example.test:9000 is server, and
// a guest at the other end of its cable. Both end with t.
func startPlugged(t *testing.T, server netip.AddrPort) (*boundary, *netstacktest.Guest) {
	log, err := audit.Create(filepath.Join(t.TempDir(), auditName), audit.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	store, err := secret.NewStore(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	set, err := secret.NewSet(nil)
	if err != nil {
		t.Fatal(err)
	}
	near, far := netstacktest.Cable(t)
	b, err := newBoundary(boundaryConfig{
		spec: Spec{
			TLS: TLS{Intercept: "auto"},
			Net: Net{ConnectTo: []ConnectTo{{Name: "flood.example.test", Port: 9000, To: server}}},
		},
		set: func() *secret.Set { return set }, store: store, log: log, link: frame.NewStream(near),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	guest, err := netstacktest.New(far, netstack.Config{
		Guest4: b.plan.guest4, Gateway4: b.plan.gateway4, Guest6: b.plan.guest6, Gateway6: b.plan.gateway6,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(guest.Close)
	return b, guest
}

// moved counts the bytes of all connections, both ways.
func moved(b *boundary) (n uint64) {
	for _, f := range b.conns.Flows() {
		n += f.In + f.Out
	}
	return n
}

// pour writes until c is closed.
func pour(c net.Conn) {
	block := make([]byte, 4<<10)
	for {
		if _, err := c.Write(block); err != nil {
			return
		}
	}
}

// settled waits until ok, for longer than anything lingers.
func settled(ok func() bool) bool {
	for deadline := time.Now().Add(45 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

func openSockets(t *testing.T) (n int) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}
