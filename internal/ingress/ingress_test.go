package ingress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/splice"
	"github.com/cutoutdev/cutout/internal/testnet"
)

const patience = 20 * time.Second // for what must happen

// The published ports of a world.
const (
	tcpPort    = 80
	udpPort    = 53
	closedPort = 81
)

// A world is a guest with published ports.
type world struct {
	*testing.T
	guest  *netstacktest.Guest
	server *Server
	events testnet.Events
}

func newWorld(t *testing.T, network *policy.Network) *world {
	t.Helper()
	w := &world{T: t}
	any4, any6 := netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("[::1]:0")
	var err error
	w.server, err = Listen([]Port{
		{policy.TCP, any4, tcpPort},
		{policy.TCP, any6, tcpPort},
		{policy.UDP, any4, udpPort},
		{policy.TCP, any4, closedPort},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.server.Close) // after the stack's end
	var stack *netstack.Stack
	w.guest, stack = netstacktest.Start(t, netstack.Config{
		TCP: func(context.Context, *netstack.TCPRequest) {},
		UDP: func(_ context.Context, r *netstack.UDPRequest) { r.Refuse() },
	})
	w.server.Serve(Config{
		Network: network, Audit: w.events.Note,
		Guest:   []netip.Addr{netstacktest.Guest4.Addr(), netstacktest.Guest6.Addr()},
		DialTCP: stack.DialTCP, DialUDP: stack.DialUDP,
	})
	return w
}

// serve has every connection to the guest's port served.
func (w *world) serve(port uint16, f func(net.Conn)) {
	l, err := w.guest.Listen(port)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f(c)
		}
	}()
}

// dial connects to the i-th published port.
func (w *world) dial(i int) *net.TCPConn {
	w.Helper()
	c, err := w.try(i)
	if err != nil {
		w.Fatal(err)
	}
	return c
}

func (w *world) try(i int) (*net.TCPConn, error) {
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(w.server.Ports()[i].Listen))
	if err != nil {
		return nil, err
	}
	w.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c, nil
}

// talk sends a byte to the i-th published port and waits for one.
func (w *world) talk(i int) error {
	c, err := w.try(i)
	if err != nil {
		return err // a reset may come this early
	}
	io.WriteString(c, "x")
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}

// told waits for an event.
func (w *world) told(event string, reason policy.Reason) audit.Event {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	e, ok := w.events.Find(ctx, func(e audit.Event) bool { return e.Event == event && e.Reason == reason })
	if !ok {
		w.Errorf("no event %s %s among %+v", event, reason, w.events.All())
	}
	return e
}

func echo(c net.Conn) { io.Copy(c, c); c.Close() }

// TestConnections: over IPv4 and IPv6, half-closed, with more than all
// buffers hold.
func TestConnections(t *testing.T) {
	w := newWorld(t, &policy.Network{})
	w.serve(tcpPort, func(c net.Conn) {
		b, _ := io.ReadAll(c)
		c.Write(b)
		c.Close()
	})
	sent := bytes.Repeat([]byte("published "), 1<<20)
	for i := range 2 {
		c := w.dial(i)
		go func() { c.Write(sent); c.CloseWrite() }()
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%s: %d of %d bytes came back, %v", w.server.Ports()[i], len(got), len(sent), err)
		}
	}
	if e := w.told(audit.Admitted, policy.None); e.Src != "127.0.0.1" || e.Dst != w.server.Ports()[0].Listen.String() {
		t.Errorf("told %+v", e)
	}
}

// TestServerFirst: the guest ends its direction first, and still hears.
func TestServerFirst(t *testing.T) {
	w := newWorld(t, &policy.Network{})
	heard := make(chan string, 1)
	w.serve(tcpPort, func(c net.Conn) {
		io.WriteString(c, "220 ready\r\n")
		splice.CloseWrite(c)
		b, _ := io.ReadAll(c)
		heard <- string(b)
		c.Close()
	})
	c := w.dial(0)
	if got, err := io.ReadAll(c); string(got) != "220 ready\r\n" || err != nil {
		t.Errorf("peer read %q, %v", got, err)
	}
	io.WriteString(c, "late")
	c.CloseWrite()
	if got := <-heard; got != "late" {
		t.Errorf("guest read %q", got)
	}
}

// TestResets: a reset of either side is one for the other, and so is a port
// that is closed.
func TestResets(t *testing.T) {
	w := newWorld(t, &policy.Network{})
	got := make(chan error, 1)
	w.serve(tcpPort, func(c net.Conn) {
		b := make([]byte, 1)
		io.ReadFull(c, b)
		if b[0] == 'r' {
			c.Close() // with something unread: a reset, RFC 2525 §2.17
			return
		}
		io.WriteString(c, "x")
		_, err := io.ReadFull(c, b)
		got <- err
	})
	t.Run("guest", func(t *testing.T) {
		c := w.dial(0)
		io.WriteString(c, "reset")
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("peer read %v", err)
		}
	})
	t.Run("peer", func(t *testing.T) {
		c := w.dial(0)
		io.WriteString(c, "p")
		io.ReadFull(c, make([]byte, 1))
		splice.Reset(c)
		if err := <-got; err == nil || errors.Is(err, io.EOF) {
			t.Errorf("guest read %v", err)
		}
	})
	t.Run("closed port", func(t *testing.T) {
		if err := w.talk(3); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("peer read %v", err)
		}
		w.told(audit.Denied, policy.UpstreamFailed)
	})
}

// TestRules: whoever no rule lets in is reset, and the guest hears nothing.
func TestRules(t *testing.T) {
	from := func(prefix string, allow bool) policy.Rule {
		return policy.Rule{Allow: allow, Direction: policy.Ingress, Target: policy.Target{Prefix: netip.MustParsePrefix(prefix)}}
	}
	tests := map[string]struct {
		network policy.Network
		reason4 policy.Reason // of the peer at 127.0.0.1
		reason6 policy.Reason // of the one at ::1
	}{
		"default":      {policy.Network{}, policy.None, policy.None},
		"default deny": {policy.Network{DenyIngress: true}, policy.AddressDenied, policy.AddressDenied},
		"rule":         {policy.Network{Rules: []policy.Rule{from("127.0.0.0/8", false)}}, policy.RuleDenied, policy.None},
		"rule allows":  {policy.Network{DenyIngress: true, Rules: []policy.Rule{from("::1/128", true)}}, policy.AddressDenied, policy.None},
		"other port": {policy.Network{DenyIngress: true, Rules: []policy.Rule{{
			Allow: true, Direction: policy.Ingress,
			Target: policy.Target{Group: policy.GroupAny}, Ports: []policy.Ports{{First: 81, Last: 81}},
		}}}, policy.AddressDenied, policy.AddressDenied},
		"egress rules count for nothing": {policy.Network{DenyIngress: true, Rules: []policy.Rule{{
			Allow: true, Direction: policy.Egress,
			Target: policy.Target{Group: policy.GroupAny},
		}}}, policy.AddressDenied, policy.AddressDenied},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, &tt.network)
			came := make(chan struct{}, 10)
			w.serve(tcpPort, func(c net.Conn) { came <- struct{}{}; echo(c) })
			for i, reason := range []policy.Reason{tt.reason4, tt.reason6} {
				err := w.talk(i)
				if reason == policy.None {
					if <-came; err != nil {
						t.Errorf("%s: %v", w.server.Ports()[i], err)
					}
					continue
				}
				if !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%s: %v", w.server.Ports()[i], err)
				}
				w.told(audit.Denied, reason)
			}
			if len(came) > 0 {
				t.Errorf("%d connections reached the guest", len(came))
			}
		})
	}
}

// TestDatagrams: each peer gets its own answers, and a rule holds for them.
func TestDatagrams(t *testing.T) {
	ask := func(w *world, text string) (string, error) {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(w.server.Ports()[2].Listen))
		if err != nil {
			return "", err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		io.WriteString(c, text)
		b := make([]byte, 1<<16)
		n, err := c.Read(b)
		return string(b[:n]), err
	}
	serve := func(w *world, heard chan<- string) {
		p, err := w.guest.ListenPacket(netip.AddrPortFrom(netstacktest.Guest4.Addr(), udpPort))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		go func() {
			b := make([]byte, 1<<16)
			for {
				n, from, err := p.ReadFrom(b)
				if err != nil {
					return
				}
				heard <- string(b[:n])
				p.WriteTo(fmt.Appendf(nil, "%s for %s", b[:n], from), from)
			}
		}()
	}
	t.Run("allowed", func(t *testing.T) {
		w := newWorld(t, &policy.Network{})
		serve(w, make(chan string, 10))
		one, err1 := ask(w, "one")
		two, err2 := ask(w, "two")
		if err1 != nil || err2 != nil || one == "" || two == "" || one[:3] != "one" || two[:3] != "two" || one[3:] == two[3:] {
			t.Errorf("peers got %q, %v and %q, %v", one, err1, two, err2)
		}
		w.told(audit.Admitted, policy.None)
	})
	t.Run("denied", func(t *testing.T) {
		w := newWorld(t, &policy.Network{DenyIngress: true})
		heard := make(chan string, 10)
		serve(w, heard)
		go ask(w, "one")
		if e := w.told(audit.Denied, policy.AddressDenied); e.Src != "127.0.0.1" {
			t.Errorf("told %+v", e)
		}
		if len(heard) > 0 {
			t.Error("the guest heard it")
		}
	})
}

// TestPortInUse: it is an error that names the port, and nothing stays open.
func TestPortInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	at := func(l net.Listener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }
	s, err := Listen([]Port{{policy.TCP, at(free), 80}, {policy.TCP, at(taken), 81}})
	if s != nil || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listen: %v", err)
	}
	if want := fmt.Sprintf("publish %s:81/tcp: bind: address already in use", at(taken)); err == nil || err.Error() != want {
		t.Errorf("error is %q, want %q", err, want)
	}
	again, err := net.Listen("tcp", at(free).String())
	if err != nil {
		t.Fatalf("the other port stayed open: %v", err)
	}
	again.Close()
}

// TestCap: B15. A crowd outside is refused beyond the cap, and heard again
// when it has gone.
func TestCap(t *testing.T) {
	w := newWorld(t, &policy.Network{})
	w.serve(tcpPort, echo)
	w.server.open.Add(maxConns)
	if err := w.talk(0); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("over the cap: %v", err)
	}
	w.told(audit.Denied, policy.LimitReached)
	w.server.open.Add(-maxConns)
	if err := w.talk(0); err != nil {
		t.Errorf("later: %v", err)
	}
}

// TestClose: connections in every state end with a reset, and nothing is left.
func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("", func(t *testing.T) {
		w := newWorld(t, &policy.Network{})
		w.serve(tcpPort, func(c net.Conn) { io.WriteString(c, "x") }) // reads nothing
		open := []net.Conn{w.dial(0), w.dial(1), w.dial(0)}
		wrote := make(chan error, 1)
		go func() { _, err := open[0].Write(make([]byte, 64<<20)); wrote <- err }()
		for _, c := range open {
			io.ReadFull(c, make([]byte, 1))
		}
		w.server.Close()
		for _, c := range open {
			_, err := io.ReadAll(c)
			if err == nil && c == open[0] {
				err = <-wrote // the kernel tells of a reset once, the reader or the writer
			}
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("peer read %v", err)
			}
		}
		if _, err := net.Dial("tcp", w.server.Ports()[0].Listen.String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a port is still open: %v", err)
		}
	})
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before+2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b := make([]byte, 1<<16)
			t.Fatalf("%d goroutines more\n%s", runtime.NumGoroutine()-before, b[:runtime.Stack(b, true)])
		}
	}
}
