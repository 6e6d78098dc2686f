package boundary

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/frame"
	"github.com/cutoutdev/cutout/internal/splice"
	"github.com/cutoutdev/cutout/internal/tap"
	"github.com/cutoutdev/cutout/internal/testnet/netns"
)

// nameserver is where the internet has its resolver.
var nameserver = netip.MustParseAddrPort("192.0.2.53:53")

// The addresses of the machine's interface to the internet.
var (
	machine4   = netip.MustParsePrefix("172.31.255.2/30")
	gateway4   = netip.MustParseAddr("172.31.255.1")
	machine6   = netip.MustParsePrefix("fd77::2/64")
	gateway6   = netip.MustParseAddr("fd77::1")
	interface0 = "net0"
)

// A machine is where cutout boundary runs: a network namespace whose default
// route leads to the internet of a test. It is used by one test after the
// other.
type machine struct {
	ns    *netns.Namespace
	guest *netns.Namespace // that of --tap
	stack *netstack.Stack
	own   map[netip.Addr]bool // addresses that were added
	world atomic.Pointer[Boundary]
}

// free are the machines that no test uses.
var free struct {
	sync.Mutex
	list []*machine
}

// newMachine returns a machine on b's internet, until b's test ends.
func newMachine(b *Boundary) (*machine, error) {
	free.Lock()
	var m *machine
	if n := len(free.list); n > 0 {
		m, free.list = free.list[n-1], free.list[:n-1]
	}
	free.Unlock()
	if m == nil {
		var err error
		if m, err = makeMachine(); err != nil {
			return nil, err
		}
	}
	m.world.Store(b)
	b.T.Cleanup(func() {
		m.world.Store(nil)
		free.Lock()
		defer free.Unlock()
		free.list = append(free.list, m)
	})
	for _, a := range b.Own {
		if m.own[a] {
			continue
		}
		if _, err := m.ns.Run("ip", "addr", "add", a.String(), "dev", "lo"); err != nil {
			return nil, err
		}
		m.own[a] = true
	}
	return m, nil
}

func makeMachine() (*machine, error) {
	m := &machine{own: map[netip.Addr]bool{}}
	var err error
	if m.ns, err = netns.New(); err != nil {
		return nil, err
	}
	if m.guest, err = netns.New(); err != nil {
		return nil, err
	}
	var device *os.File
	var local net.Listener
	err = m.ns.In(func() (err error) {
		if device, err = tap.Create(interface0); err != nil {
			return err
		}
		err = tap.Configure(interface0, netstack.DefaultGuestMAC, netstack.DefaultMTU, []tap.Address{
			{Prefix: machine4, Gateway: gateway4, Route: true}, {Prefix: machine6, Gateway: gateway6, Route: true},
		})
		if err != nil {
			return err
		}
		local, err = net.Listen("tcp", ":443")
		return err
	})
	if err != nil {
		return nil, err
	}
	link, err := frame.NewDevice(device)
	if err != nil {
		return nil, err
	}
	go m.serveLocal(local)
	m.stack, err = netstack.New(netstack.Config{
		Link: link, Guest4: machine4, Gateway4: gateway4, Guest6: machine6, Gateway6: gateway6,
		TCP: m.connection, UDP: m.datagram,
	})
	return m, err
}

// connection leads to what the test has at its address.
func (m *machine) connection(ctx context.Context, r *netstack.TCPRequest) {
	b := m.world.Load()
	if b == nil {
		return
	}
	var up net.Conn
	var err error
	if r.Dst == nameserver {
		up, err = new(net.Dialer).DialContext(ctx, "tcp", b.DNS.Addr().String())
	} else {
		up, err = b.Routes.Dial(ctx, r.Dst)
	}
	if err != nil {
		return
	}
	c, err := r.Accept()
	if err != nil {
		up.Close()
		return
	}
	splice.Join(c, up)
}

// datagram answers for the resolver; all others end here.
func (m *machine) datagram(_ context.Context, r *netstack.UDPRequest) {
	b := m.world.Load()
	if b == nil {
		return
	}
	if r.Dst != nameserver {
		b.Routes.Note(r.Dst)
		return
	}
	go func() {
		c, err := net.Dial("udp", b.DNS.Addr().String())
		if err != nil {
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(30 * time.Second))
		answer := make([]byte, 64<<10)
		c.Write(r.Payload)
		if n, err := c.Read(answer); err == nil {
			r.Reply(answer[:n])
		}
	}()
}

// serveLocal is good.test's server, for whoever lets a guest reach the
// machine itself. It notes under which of its addresses.
func (m *machine) serveLocal(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		b := m.world.Load()
		if b == nil {
			c.Close()
			continue
		}
		b.Routes.Note(addrPort(c.LocalAddr()))
		go func() {
			up, err := net.Dial("tcp", b.Good.Addr().String())
			if err != nil {
				c.Close()
				return
			}
			splice.Join(c, up)
		}()
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	p := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// packets is the link at the guest's end of the interface name that a
// boundary has made: whole frames, past the kernel's own stack, which is left
// without addresses.
func (m *machine) packets(name string) (frame.Link, error) {
	var f *os.File
	err := m.guest.In(func() (err error) {
		f, err = openPackets(name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open packet socket on %s: %w", name, err)
	}
	return frame.NewDevice(f)
}
