package relay

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
	"github.com/cutoutdev/cutout/internal/pin"
	"github.com/cutoutdev/cutout/internal/policy"
)

const patience = 20 * time.Second // for what must happen

// A world is a guest behind a relay, and a server that sends back what it
// hears, at whatever address the guest believes it to be.
type world struct {
	guest  *netstacktest.Guest
	relay  *Relay
	pins   pin.Table
	server *net.UDPConn

	mu     sync.Mutex
	dialed []netip.AddrPort
	events []audit.Event
}

func newWorld(t *testing.T, change func(*Config)) *world {
	t.Helper()
	w := new(world)
	var err error
	if w.server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0"))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.server.Close() })
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := w.server.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			w.server.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	cfg := Config{
		Network: &policy.Network{Local: func(netip.Addr) bool { return false }}, Pins: &w.pins,
		Audit: func(e audit.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e)
		},
		Dial: func(p policy.Protocol, dst netip.AddrPort) (Socket, error) {
			w.mu.Lock()
			w.dialed = append(w.dialed, dst)
			w.mu.Unlock()
			return dial(p, w.server.LocalAddr().(*net.UDPAddr).AddrPort())
		},
	}
	if change != nil {
		change(&cfg)
	}
	w.relay = New(cfg)
	t.Cleanup(w.relay.Close) // after the stack's end
	w.guest, _ = netstacktest.Start(t, netstack.Config{
		TCP: func(context.Context, *netstack.TCPRequest) {},
		UDP: func(_ context.Context, r *netstack.UDPRequest) {
			w.relay.Datagram(Datagram{Src: r.Src, Dst: r.Dst, Payload: r.Take(), Reply: r.Reply, Refuse: r.Refuse})
		},
		Echo: func(_ context.Context, r *netstack.EchoRequest) {
			w.relay.Ping(Ping{Src: r.Src, Dst: r.Dst, ID: r.ID, Seq: r.Seq, Payload: r.Payload, Reply: r.Reply, Refuse: r.Refuse})
		},
	})
	return w
}

func (w *world) dial(t *testing.T, to string) net.Conn {
	t.Helper()
	c, err := w.guest.Dial(context.Background(), "udp", netip.MustParseAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// told returns the reasons of the events so far.
func (w *world) told() (out []policy.Reason) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		out = append(out, e.Reason)
	}
	return out
}

func exchange(c net.Conn, b []byte) ([]byte, error) {
	if _, err := c.Write(b); err != nil {
		return nil, err
	}
	got := make([]byte, 1<<16)
	n, err := c.Read(got)
	return got[:n], err
}

// TestDatagrams: they come back from where they were sent to, also those that
// travel in fragments outside.
func TestDatagrams(t *testing.T) {
	w := newWorld(t, nil)
	for _, to := range []string{"1.1.1.1:9000", "[2606:4700::1]:9000"} {
		c := w.dial(t, to)
		for _, n := range []int{0, 1, 1472, 9000, 60000} {
			b := bytes.Repeat([]byte{byte(n)}, n)
			if got, err := exchange(c, b); err != nil || !bytes.Equal(got, b) {
				t.Errorf("%s, %d bytes: %d came back, %v", to, n, len(got), err)
			}
		}
	}
	if len(w.dialed) != 2 {
		t.Errorf("%d sockets for two destinations", len(w.dialed))
	}
}

// TestRefused: A10 and what the network denies are answered by ICMP at once,
// and nothing is sent.
func TestRefused(t *testing.T) {
	byNumber := policy.Rule{Allow: true, Direction: policy.Egress, Target: policy.Target{Group: policy.GroupPublic}, Protocol: policy.UDP, Ports: []policy.Ports{{First: 443, Last: 443}}}
	tests := map[string]struct {
		to     string
		rules  []policy.Rule
		reason policy.Reason // None = passes
	}{
		"private":                     {"10.0.0.5:9000", nil, policy.AddressDenied},
		"metadata":                    {"169.254.169.254:9000", nil, policy.AddressDenied},
		"private, IPv6":               {"[fd00::1]:9000", nil, policy.AddressDenied},
		"QUIC":                        {"1.1.1.1:443", nil, policy.ProtocolDenied},
		"DNS over QUIC":               {"1.1.1.1:853", nil, policy.ProtocolDenied},
		"NetBIOS":                     {"1.1.1.1:137", nil, policy.ProtocolDenied},
		"mDNS":                        {"1.1.1.1:5353", nil, policy.ProtocolDenied},
		"QUIC by rule":                {"1.1.1.1:443", []policy.Rule{byNumber}, policy.None},
		"QUIC of a secret's, by rule": {"1.1.1.2:443", []policy.Rule{byNumber}, policy.ProtocolDenied},
		"a rule":                      {"1.1.1.1:9000", []policy.Rule{{Direction: policy.Egress, Target: policy.Target{Group: policy.GroupAny}, Protocol: policy.UDP}}, policy.RuleDenied},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) {
				c.Network.Rules = tt.rules
				c.Secret = func(n hostname.Name) bool { return n == "good.test" }
			})
			w.pins.Add("good.test", netip.MustParseAddr("1.1.1.2"), time.Hour)
			if tt.reason == policy.None {
				if _, err := exchange(w.dial(t, tt.to), []byte("x")); err != nil {
					t.Error(err)
				}
				return
			}
			switch answer := w.answer(t, tt.to); {
			case !unreachable(answer):
				t.Errorf("answered by %x", answer)
			case len(w.dialed) > 0:
				t.Error("was dialled")
			case len(w.told()) != 1 || w.told()[0] != tt.reason:
				t.Errorf("told %v", w.told())
			}
		})
	}
}

// TestNobodyThere: the answer of a machine on which nobody listens reaches
// the guest.
func TestNobodyThere(t *testing.T) {
	w := newWorld(t, nil)
	w.server.Close()
	if answer := w.answer(t, "1.1.1.1:9000"); !unreachable(answer) {
		t.Errorf("answered by %x", answer)
	}
}

// answer sends a datagram as the guest and returns the frame that comes back.
func (w *world) answer(t *testing.T, to string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	frames := w.guest.Capture(ctx)
	dst, src := netip.MustParseAddrPort(to), netstacktest.Guest4.Addr()
	if dst.Addr().Is6() {
		src = netstacktest.Guest6.Addr()
	}
	w.guest.SendFrame(w.guest.Ethernet(netstacktest.UDP(netip.AddrPortFrom(src, 5000), dst, []byte("x"))))
	select {
	case f := <-frames:
		return f
	case <-ctx.Done():
		t.Fatal("no answer")
		return nil
	}
}

// unreachable reports whether a frame is ICMP "destination unreachable".
func unreachable(f []byte) bool {
	if len(f) > 34 && f[12] == 0x08 {
		return f[23] == 1 && f[34] == 3
	}
	return len(f) > 54 && f[20] == 58 && f[54] == 1
}

// TestForeignAnswers: what another than the destination sends to a session's
// socket is not heard.
func TestForeignAnswers(t *testing.T) {
	sockets := make(chan *net.UDPConn, 1)
	w := newWorld(t, func(c *Config) {
		inner := c.Dial
		c.Dial = func(p policy.Protocol, dst netip.AddrPort) (Socket, error) {
			s, err := inner(p, dst)
			if u, ok := s.(*net.UDPConn); ok {
				sockets <- u
			}
			return s, err
		}
	})
	c := w.dial(t, "1.1.1.1:9000")
	if _, err := exchange(c, []byte("one")); err != nil {
		t.Fatal(err)
	}
	stranger, err := net.DialUDP("udp", nil, (<-sockets).LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	stranger.Write([]byte("forged"))
	if got, err := exchange(c, []byte("two")); err != nil || string(got) != "two" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestCap: B15. A scan opens no more sockets than the cap, and the guest's
// next session works.
func TestCap(t *testing.T) {
	w := newWorld(t, nil)
	var refused int
	for n := range 3 * maxSessions {
		w.relay.Datagram(Datagram{
			Src: netip.MustParseAddrPort("10.99.0.2:5000"), Dst: netip.AddrPortFrom(netip.MustParseAddr("1.1.1.1"), uint16(10000+n)),
			Payload: []byte("x"), Reply: func([]byte) error { return nil }, Refuse: func() { refused++ },
		})
	}
	w.relay.mu.Lock()
	n := len(w.relay.sessions)
	w.relay.mu.Unlock()
	if n != maxSessions || refused != 0 {
		t.Errorf("%d sessions, %d refused", n, refused)
	}
	if told := w.told(); len(told) != 2*maxSessions || told[0] != policy.LimitReached {
		t.Errorf("%d events", len(told))
	}
	if got, err := exchange(w.dial(t, "1.1.1.1:9000"), []byte("x")); err != nil || string(got) != "x" {
		t.Errorf("then: %q, %v", got, err)
	}
}

// TestIdle: a session that is not used ends, with its socket and goroutine.
func TestIdle(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Idle = 50 * time.Millisecond })
	if _, err := exchange(w.dial(t, "1.1.1.1:9000"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		w.relay.mu.Lock()
		n := len(w.relay.sessions)
		w.relay.mu.Unlock()
		if n == 0 {
			break
		}
		if time.Since(begin) > patience {
			t.Fatal("the session stays")
		}
	}
	done := make(chan struct{})
	go func() { w.relay.running.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("its goroutine stays")
	}
}

// TestPing: pings go out through the machine's ping sockets, in a network
// namespace where they are allowed, and come back with the guest's id.
func TestPing(t *testing.T) {
	open := pingNamespace(t)
	w := newWorld(t, func(c *Config) {
		c.Dial = func(policy.Protocol, netip.AddrPort) (Socket, error) { return open() }
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	frames := w.guest.Capture(ctx)
	for _, n := range []int{0, 56, 30000} {
		data := bytes.Repeat([]byte{'p'}, n)
		m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 4711, Seq: n, Data: data}}
		b, err := m.Marshal(nil)
		if err != nil {
			t.Fatal(err)
		}
		b[2], b[3] = 0, 0 // ICMP sums anew
		w.guest.SendFrame(w.guest.Ethernet(netstacktest.ICMP(netstacktest.Guest4.Addr(), netip.MustParseAddr("1.1.1.1"), b)))
		select {
		case f := <-frames:
			got, err := icmp.ParseMessage(1, f[14+20:])
			if err != nil {
				t.Fatal(err)
			}
			e, ok := got.Body.(*icmp.Echo)
			if !ok || got.Type != ipv4.ICMPTypeEchoReply || e.ID != 4711 || e.Seq != n || !bytes.Equal(e.Data, data) {
				t.Errorf("%d bytes: %v", n, got)
			}
		case <-ctx.Done():
			t.Fatal("no answer")
		}
	}
}

// TestPingRefused: without ping sockets, and to what is denied.
func TestPingRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		to   string
		dial func(policy.Protocol, netip.AddrPort) (Socket, error)
		want policy.Reason
	}{
		"not allowed": {"1.1.1.1", func(policy.Protocol, netip.AddrPort) (Socket, error) { return nil, errNoPing }, policy.ProtocolDenied},
		"private":     {"10.0.0.1", nil, policy.AddressDenied},
	} {
		w := newWorld(t, func(c *Config) { c.Dial = tt.dial })
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		frames := w.guest.Capture(ctx)
		w.guest.SendFrame(w.guest.Ethernet(netstacktest.ICMP(netstacktest.Guest4.Addr(), netip.MustParseAddr(tt.to), []byte{8, 0, 0, 0, 0, 1, 0, 1, 'p'})))
		select {
		case f := <-frames:
			if f[34] != byte(ipv4.ICMPTypeDestinationUnreachable) || f[35] != 13 {
				t.Errorf("%s: answered by %x", name, f)
			}
		case <-ctx.Done():
			t.Errorf("%s: no answer", name)
		}
		if told := w.told(); len(told) != 1 || told[0] != tt.want {
			t.Errorf("%s: told %v", name, told)
		}
		cancel()
	}
}

// on runs functions on one thread, which nobody else uses.
func on() func(func()) {
	work := make(chan func())
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread ends with it
		for f := range work {
			f()
		}
	}()
	return func(f func()) {
		done := make(chan struct{})
		work <- func() { defer close(done); f() }
		<-done
	}
}

// TestFirstDatagramForgotten: B15. What began a session does not stay in
// memory for as long as it lasts: 512 of 64 KiB would be half of what the
// guest's connections may take.
func TestFirstDatagramForgotten(t *testing.T) {
	w := newWorld(t, nil)
	freed := make(chan struct{})
	func() {
		payload := new([60000]byte)
		runtime.AddCleanup(payload, func(c chan struct{}) { close(c) }, freed)
		r := &netstack.UDPRequest{Payload: payload[:]}
		w.relay.Datagram(Datagram{
			Src: netip.MustParseAddrPort("10.99.0.2:5000"), Dst: netip.MustParseAddrPort("1.1.1.1:9000"),
			Payload: r.Take(), Reply: func([]byte) error { _ = r; return nil }, Refuse: func() { _ = r },
		})
	}()
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		runtime.GC()
		select {
		case <-freed:
			w.relay.mu.Lock()
			defer w.relay.mu.Unlock()
			if len(w.relay.sessions) != 1 {
				t.Error("the session is gone too")
			}
			return
		default:
		}
		if time.Since(begin) > patience {
			t.Fatal("the datagram stays")
		}
	}
}
