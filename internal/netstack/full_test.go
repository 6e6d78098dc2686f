package netstack_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
)

// full writes to c until nothing has been taken for a while.
func full(c net.Conn) (sent int64) {
	b := bytes.Repeat([]byte("x"), 1<<16)
	for {
		c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := c.Write(b)
		if sent += int64(n); err != nil {
			return sent
		}
	}
}

// TestBothFull: with every buffer full in both directions, either side gets
// all that it was sent while the other reads nothing.
//
// The guest's windows are not scaled. gVisor's receiver lets what is left of a
// scaled one round to 0, and then takes no ACK of a peer that has filled it:
// one run in ten would stall with gVisor as the guest. Linux does neither.
func TestBothFull(t *testing.T) {
	for _, reader := range []string{"guest", "boundary"} {
		for range 5 {
			conns := make(chan net.Conn, 1)
			g, _ := netstacktest.Start(t, netstack.Config{TCP: func(_ context.Context, r *netstack.TCPRequest) {
				if c, err := r.Accept(); err == nil {
					conns <- c
				}
			}})
			g.Buffers(32 << 10)
			guest, err := g.Dial(context.Background(), "tcp", netip.MustParseAddrPort("93.184.216.34:80"))
			if err != nil {
				t.Fatal(err)
			}
			boundary := <-conns
			sent := map[string]int64{"boundary": full(guest), "guest": full(boundary)}
			from := map[string]net.Conn{"guest": guest, "boundary": boundary}[reader]
			from.SetReadDeadline(time.Now().Add(20 * time.Second))
			if n, err := io.CopyN(io.Discard, from, sent[reader]); err != nil {
				t.Errorf("the %s reads %d bytes of %d: %v", reader, n, sent[reader], err)
			}
			guest.Close()
			boundary.Close()
		}
	}
}
