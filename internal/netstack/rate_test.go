package netstack_test

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
)

// TestRates: each direction keeps to its rate, in bytes and in packets,
// nothing is lost, and it is told.
func TestRates(t *testing.T) {
	const size = 4 << 20
	tests := map[string]struct {
		fromGuest, toGuest netstack.Rate
		slow               netstack.Limit // "" = none
	}{
		"no bound":            {netstack.Rate{}, netstack.Rate{}, ""},
		"bytes from guest":    {netstack.Rate{Bytes: 8 << 20}, netstack.Rate{}, netstack.RateFromGuest},
		"bytes to guest":      {netstack.Rate{}, netstack.Rate{Bytes: 8 << 20}, netstack.RateToGuest},
		"packets from guest":  {netstack.Rate{Packets: 600}, netstack.Rate{}, netstack.RateFromGuest},
		"far below its bound": {netstack.Rate{Bytes: 1e10, Packets: 1e7}, netstack.Rate{Bytes: 1e10, Packets: 1e7}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var told atomic.Pointer[netstack.Limit]
			cfg := netstack.Config{
				FromGuest: tt.fromGuest, ToGuest: tt.toGuest,
				Limited: func(l netstack.Limit) { told.Store(&l) },
				TCP: func(_ context.Context, r *netstack.TCPRequest) {
					c, err := r.Accept()
					if err != nil {
						return
					}
					defer c.Close()
					if r.Dst.Port() == 1 {
						io.CopyN(c, zeros{}, size)
						return
					}
					io.Copy(io.Discard, c)
				},
			}
			if tt.fromGuest.Packets == 600 {
				cfg.MTU = 4000 // or there would be too few packets to measure
			}
			g, _ := netstacktest.Start(t, cfg)
			toGuest := transfer(t, g, 1, func(c net.Conn) (int64, error) { return io.Copy(io.Discard, c) })
			fromGuest := transfer(t, g, 2, func(c net.Conn) (int64, error) {
				n, err := io.CopyN(c, zeros{}, size)
				c.(interface{ CloseWrite() error }).CloseWrite()
				io.Copy(io.Discard, c)
				return n, err
			})
			const least = 250 * time.Millisecond // half of 4 MiB at 8 MiB/s, less what may pass at once
			if tt.slow == netstack.RateFromGuest && fromGuest < least {
				t.Errorf("from the guest: %v", fromGuest)
			}
			if tt.slow == netstack.RateToGuest && toGuest < least {
				t.Errorf("to the guest: %v", toGuest)
			}
			switch l := told.Load(); {
			case l == nil && tt.slow != "":
				t.Error("nothing was told")
			case l != nil && *l != tt.slow:
				t.Errorf("told %q", *l)
			}
		})
	}
}

// transfer moves size bytes over a connection to port and returns how long
// it took.
func transfer(t *testing.T, g *netstacktest.Guest, port uint16, move func(net.Conn) (int64, error)) time.Duration {
	t.Helper()
	begin := time.Now()
	c, err := g.Dial(context.Background(), "tcp", at(server4.Addr(), port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := move(c); err != nil || n != 4<<20 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	return time.Since(begin)
}
