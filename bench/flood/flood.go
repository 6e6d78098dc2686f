//go:build linux

package main

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/cutoutdev/cutout/bench/boundary"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
)

// buffers is what the flood's own ends hold of a connection, little, so that
// what is on its way is the keeper's to hold.
const buffers = 16 << 10

const (
	asking  = 256             // connections that are asked for at the same moment
	filling = 2 * time.Second // how long they are written to
	// patience is how much longer than it should a flood may take on a busy
	// machine.
	patience = 15 * time.Second
)

// beFlood is a guest that opens as many connections as it can, writes to each
// what is not read and reads nothing of what comes, closes them, and begins
// again. The server that they lead to is in this process too.
func beFlood() error {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, buffers)
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, buffers)
		})
	}}
	l, err := config.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go fill(c)
		}
	}()
	if err := json.NewEncoder(os.Stdout).Encode(result{Server: l.Addr().String()}); err != nil {
		return err
	}
	var g *netstacktest.Guest
	var to netip.AddrPort
	return obey(func(o order) result {
		if g == nil {
			if g, to, err = plug(o); err != nil {
				return result{Err: err.Error()}
			}
			g.Buffers(buffers)
		}
		ctx, cancel := context.WithTimeout(context.Background(), o.Span+patience)
		defer cancel()
		var r result
		for begin := time.Now(); time.Since(begin) < o.Span; {
			opened, refused := crowd(ctx, g, to)
			r.Opened, r.Refused = r.Opened+opened, r.Refused+refused
		}
		return r
	})
}

// plug plugs the flood in, and resolves the name that leads to its server.
func plug(o order) (*netstacktest.Guest, netip.AddrPort, error) {
	g, err := boundary.Plug(o.Socket, o.Env)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	addrs, err := g.Resolve(ctx, floodName)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	return g, netip.AddrPortFrom(addrs[0], floodPort), nil
}

// crowd asks for connections, fills all that it has got when the last was
// answered, and closes them. It ends early if ctx is over.
func crowd(ctx context.Context, g *netstacktest.Guest, to netip.AddrPort) (opened, refused int) {
	var mu sync.Mutex
	var open []net.Conn
	var dialled, filled sync.WaitGroup
	left := make(chan struct{}, connections)
	for range connections {
		left <- struct{}{}
	}
	close(left)
	for range asking {
		dialled.Go(func() {
			for range left {
				c, err := g.Dial(ctx, "tcp", to)
				if ctx.Err() != nil {
					if err == nil {
						c.Close()
					}
					return
				}
				mu.Lock()
				if err != nil {
					refused++
				} else {
					open = append(open, c)
				}
				mu.Unlock()
			}
		})
	}
	dialled.Wait()
	for _, c := range open {
		filled.Go(func() { fill(c) })
	}
	select {
	case <-time.After(filling):
	case <-ctx.Done():
	}
	for _, c := range open {
		c.Close()
	}
	filled.Wait()
	return len(open), refused
}

var block = make([]byte, 64<<10)

// fill writes until c is closed.
func fill(c net.Conn) {
	defer c.Close()
	for {
		if _, err := c.Write(block); err != nil {
			return
		}
	}
}
