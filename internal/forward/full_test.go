package forward

import (
	"context"
	"net"
	"testing"
	"time"
)

// TestFull: that clients must wait is told, and not before.
func TestFull(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	full := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		(&Server{Full: func() { full <- struct{}{} }}).Run(ctx, l)
	}()
	defer func() { cancel(); <-ended }()
	dial := func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	for range maxConns - 1 {
		dial()
	}
	select {
	case <-full:
		t.Error("told while there is room")
	case <-time.After(300 * time.Millisecond):
	}
	dial()
	select {
	case <-full:
	case <-time.After(20 * time.Second):
		t.Error("nothing was told")
	}
}
