package netstack_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
)

var (
	server4 = netip.MustParseAddrPort("192.0.2.7:80")
	server6 = netip.MustParseAddrPort("[2001:db8::7]:80")
)

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func refuse(_ context.Context, r *netstack.TCPRequest) { r.Refuse() }

// echo accepts everything and sends back what it gets.
func echo(_ context.Context, r *netstack.TCPRequest) {
	c, err := r.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	io.Copy(c, c)
}

func TestTCPEcho(t *testing.T) {
	for _, to := range []netip.AddrPort{server4, server6} {
		for _, mtu := range []int{1280, 1500, 65520} {
			t.Run(to.String(), func(t *testing.T) {
				var got *netstack.TCPRequest
				g, s := netstacktest.Start(t, netstack.Config{MTU: mtu, TCP: func(ctx context.Context, r *netstack.TCPRequest) {
					got = r
					echo(ctx, r)
				}})
				c, err := g.Dial(within(t, 10*time.Second), "tcp", to)
				if err != nil {
					t.Fatal(err)
				}
				c.SetDeadline(time.Now().Add(20 * time.Second))
				sent := make([]byte, 3<<20)
				rand.Read(sent)
				var wg sync.WaitGroup
				wg.Go(func() {
					c.Write(sent)
					c.(interface{ CloseWrite() error }).CloseWrite()
				})
				received, err := io.ReadAll(c)
				wg.Wait()
				if err != nil || !bytes.Equal(sent, received) {
					t.Fatalf("got %d of %d bytes back, error %v", len(received), len(sent), err)
				}
				if got.Dst != to || got.Src.Addr() != netstacktest.Guest4.Addr() && got.Src.Addr() != netstacktest.Guest6.Addr() {
					t.Errorf("flow was %v → %v", got.Src, got.Dst)
				}
				if n := s.Counters().Dropped; len(n) > 0 {
					t.Errorf("dropped %v", n)
				}
			})
		}
	}
}

func TestTCPRefuse(t *testing.T) {
	hooks := map[string]func(context.Context, *netstack.TCPRequest){
		"refuse":          refuse,
		"neither of both": func(context.Context, *netstack.TCPRequest) {},
	}
	for name, hook := range hooks {
		t.Run(name, func(t *testing.T) {
			g, s := netstacktest.Start(t, netstack.Config{TCP: hook})
			for _, to := range []netip.AddrPort{server4, server6} {
				start := time.Now()
				_, err := g.Dial(within(t, 10*time.Second), "tcp", to)
				if err == nil || !strings.Contains(err.Error(), "refused") {
					t.Errorf("dial %v: %v, want refused", to, err)
				}
				if took := time.Since(start); took > time.Second {
					t.Errorf("refusal of %v took %v", to, took)
				}
			}
			if n := s.Counters().TCPOpen; n != 0 {
				t.Errorf("%d connections counted as open", n)
			}
		})
	}
}

func TestTCPHalfClose(t *testing.T) {
	g, _ := netstacktest.Start(t, netstack.Config{TCP: func(_ context.Context, r *netstack.TCPRequest) {
		c, err := r.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, "hello")
		c.(*netstack.Conn).CloseWrite()
		b, _ := io.ReadAll(c) // the guest still speaks
		if string(b) != "late" {
			c.(*netstack.Conn).Reset()
		}
	}})
	c, err := g.Dial(within(t, 10*time.Second), "tcp", server4)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(c)
	if string(b) != "hello" || err != nil {
		t.Fatalf("read %q, %v", b, err)
	}
	if _, err := io.WriteString(c, "late"); err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestTCPReset(t *testing.T) {
	g, s := netstacktest.Start(t, netstack.Config{TCP: func(_ context.Context, r *netstack.TCPRequest) {
		if c, err := r.Accept(); err == nil {
			io.WriteString(c, "part")
			io.ReadFull(c, make([]byte, 1)) // the guest knows that it is connected
			c.(*netstack.Conn).Reset()
		}
	}})
	c, err := g.Dial(within(t, 10*time.Second), "tcp", server4)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "x")
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(c); err == nil {
		t.Error("a reset looks like a proper end")
	}
	if n := s.Counters().TCPOpen; n != 0 {
		t.Errorf("%d connections counted as open", n)
	}
}

func TestMaxTCP(t *testing.T) {
	g, s := netstacktest.Start(t, netstack.Config{MaxTCP: 2, TCP: echo})
	ctx := within(t, 20*time.Second)
	open := []net.Conn{}
	for range 2 {
		c, err := g.Dial(ctx, "tcp", server4)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	if _, err := g.Dial(ctx, "tcp", server4); err == nil {
		t.Error("third connection was accepted")
	}
	if s.Counters().Dropped[netstack.TooManyTCP] != 1 {
		t.Errorf("dropped %v", s.Counters().Dropped)
	}
	open[0].Close()
	for { // the place is free once the boundary has seen the end
		if c, err := g.Dial(ctx, "tcp", server4); err == nil {
			c.Close()
			return
		} else if errors.Is(err, context.DeadlineExceeded) {
			t.Fatal("the place was not given back")
		}
		time.Sleep(5 * time.Millisecond)
	}
}
