package netstack_test

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
)

// TestDeadline: who waits for a guest's first word asks for
// os.ErrDeadlineExceeded, as net.Conn promises.
func TestDeadline(t *testing.T) {
	results := make(chan error, 2)
	g, _ := netstacktest.Start(t, netstack.Config{TCP: func(_ context.Context, r *netstack.TCPRequest) {
		c, err := r.Accept()
		if err != nil {
			results <- err
			results <- err
			return
		}
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		_, err = c.Read(make([]byte, 1))
		results <- err
		c.SetWriteDeadline(time.Unix(1, 0))
		_, err = c.Write(make([]byte, 1))
		results <- err
	}})
	c, err := g.Dial(within(t, 10*time.Second), "tcp", server4)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, what := range []string{"read", "write"} {
		err := <-results
		if timeout, ok := errors.AsType[net.Error](err); !errors.Is(err, os.ErrDeadlineExceeded) || !ok || !timeout.Timeout() {
			t.Errorf("%s: got %v", what, err)
		}
	}
}
