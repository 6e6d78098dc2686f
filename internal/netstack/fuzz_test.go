package netstack_test

import (
	"context"
	"encoding/binary"
	"io"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/frame"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
)

// FuzzLink sends a stream of frames, each of which is patched so that it
// passes the first checks: no panic, and the gateway still answers if the
// framing was kept. Bounded: what is open afterwards is counted.
func FuzzLink(f *testing.F) {
	seed := func(packets ...[]byte) {
		var b []byte
		for _, p := range packets {
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(p))), p...)
		}
		f.Add(b)
	}
	to4, to6 := at(server4.Addr(), 443), at(server6.Addr(), 443)
	seed(netstacktest.TCP(at(guest4, 999), to4, 1, 0, syn), netstacktest.TCP(at(guest4, 999), to4, 2, 1, 0x10), netstacktest.TCP(at(guest4, 999), to4, 2, 1, 0x04))
	seed(netstacktest.TCP(at(guest6, 999), to6, 1, 0, syn))
	seed(netstacktest.UDP(at(guest4, 999), at(gw4, 53), []byte("query")), netstacktest.UDP(at(guest6, 999), to6, []byte("quic")))
	seed(netstacktest.ICMP(guest4, gw4, []byte{8, 0, 0, 0, 0, 1, 0, 1}), netstacktest.ICMP(guest4, to4.Addr(), []byte{3, 4, 0, 0, 0, 0, 5, 0xdc, 0x45}))
	seed(netstacktest.ICMP(guest6, gw6, append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, gw6.AsSlice()...)))
	seed(netstacktest.IP(guest6, gw6, 44, []byte{17, 0, 0, 1, 0, 0, 0, 1, 0, 9, 0, 53, 0, 99, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}))
	seed(netstacktest.IP(guest4, gw4, 17, []byte{0, 9, 0, 53, 0, 8, 0, 0}), []byte{0x46})

	w := newWorld(f, netstack.Config{})
	f.Fuzz(func(t *testing.T, b []byte) {
		for range 64 {
			if len(b) < 2 {
				break
			}
			n := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
			if w.guest.SendFrame(w.guest.Ethernet(own(b[2:2+n]))) != nil {
				t.Fatal("the link ended")
			}
			b = b[2+n:]
		}
		w.settle(t)
		if c := w.stack.Counters(); c.TCPOpen > 4096 || runtime.NumGoroutine() > 10000 {
			t.Fatalf("%d connections, %d goroutines", c.TCPOpen, runtime.NumGoroutine())
		}
	})
}

// own gives a packet the guest's source address and an IPv4 header checksum
// that fits, if it is long enough to have them.
func own(p []byte) []byte {
	p = append([]byte(nil), p...)
	switch {
	case len(p) >= 40 && p[0]>>4 == 6:
		copy(p[8:24], guest6.AsSlice())
	case len(p) >= 20 && p[0]>>4 == 4:
		copy(p[12:16], guest4.AsSlice())
		if n := int(p[0]&15) * 4; n >= 20 && n <= len(p) {
			p[10], p[11] = 0, 0
			sum := uint32(0)
			for i := 0; i < n; i += 2 {
				sum += uint32(binary.BigEndian.Uint16(p[i:]))
			}
			for sum > 0xffff {
				sum = sum>>16 + sum&0xffff
			}
			binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
		}
	}
	return p
}

// FuzzStream sends bytes past the framing.
func FuzzStream(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add(append([]byte{0, 0, 0, 42}, netstacktest.ARP(1, netstack.DefaultGuestMAC, guest4, make([]byte, 6), gw4)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		frames := 0
		r := frame.NewReader(&oneByte{b})
		for {
			p, err := r.Next()
			if err != nil {
				break
			}
			if len(p) > frame.Max {
				t.Fatalf("a frame of %d bytes", len(p))
			}
			frames++
		}
		if frames > len(b)/4 {
			t.Fatalf("%d frames in %d bytes", frames, len(b))
		}
		cfg := netstack.Config{TCP: refuse, Guest4: netstacktest.Guest4, Gateway4: netstacktest.Gateway4}
		boundary, end := netstacktest.Cable(t)
		cfg.Link = frame.NewStream(boundary)
		s, err := netstack.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		go io.Copy(io.Discard, end)
		end.Write(b)
		end.Close()
		select {
		case <-s.Done():
		case <-time.After(10 * time.Second):
			t.Fatal("the link goes on after its end")
		}
		s.Close()
	})
}

// oneByte gives one byte per read.
type oneByte struct{ b []byte }

func (o *oneByte) Read(p []byte) (int, error) {
	if len(o.b) == 0 {
		return 0, io.EOF
	}
	p[0], o.b = o.b[0], o.b[1:]
	return 1, nil
}

func benchTransfer(b *testing.B, up bool, mtu int) {
	const size = 8 << 20
	g, _ := netstacktest.Start(b, netstack.Config{MTU: mtu, TCP: func(_ context.Context, r *netstack.TCPRequest) {
		c, err := r.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if up {
			io.Copy(io.Discard, c)
			return
		}
		chunk := make([]byte, 256<<10)
		for {
			if _, err := c.Write(chunk); err != nil {
				return
			}
		}
	}})
	c, err := g.Dial(within(b, time.Minute), "tcp", server4)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	chunk := make([]byte, 256<<10)
	b.SetBytes(size)
	for b.Loop() {
		for n := 0; n < size; {
			m, err := 0, error(nil)
			if up {
				m, err = c.Write(chunk)
			} else {
				m, err = c.Read(chunk)
			}
			if err != nil {
				b.Fatal(err)
			}
			n += m
		}
	}
}

func BenchmarkUp(b *testing.B)       { benchTransfer(b, true, 65520) }
func BenchmarkDown(b *testing.B)     { benchTransfer(b, false, 65520) }
func BenchmarkUp1500(b *testing.B)   { benchTransfer(b, true, 1500) }
func BenchmarkDown1500(b *testing.B) { benchTransfer(b, false, 1500) }

func BenchmarkConnect(b *testing.B) {
	g, _ := netstacktest.Start(b, netstack.Config{TCP: func(_ context.Context, r *netstack.TCPRequest) {
		if c, err := r.Accept(); err == nil {
			c.Close()
		}
	}})
	// other servers and ports, so that the guest's TIME-WAIT is not in the way
	n := 0
	for b.Loop() {
		to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(n >> 8), byte(n)}), uint16(1000+n>>16))
		n++
		c, err := g.Dial(context.Background(), "tcp", to)
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, c)
		c.Close()
	}
}

func BenchmarkRefuse(b *testing.B) {
	g, _ := netstacktest.Start(b, netstack.Config{TCP: refuse})
	for b.Loop() {
		if _, err := g.Dial(context.Background(), "tcp", server4); err == nil {
			b.Fatal("accepted")
		}
	}
}
