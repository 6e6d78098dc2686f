package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/cutoutdev/cutout/internal/forward"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/term"
)

// A listenPlug is a port for programs that take a proxy.
type listenPlug struct {
	listener *net.TCPListener
	file     *os.File
}

// newListenPlug listens at ADDR:PORT, or PORT of the loopback.
func newListenPlug(addr string, notice func(string)) (plug, error) {
	if !strings.Contains(addr, ":") {
		addr = ":" + addr
	}
	if strings.HasPrefix(addr, ":") {
		addr = "127.0.0.1" + addr
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, term.WithHint(fmt.Errorf("open --listen: %w", err), "write --listen PORT or ADDR:PORT")
	}
	p := &listenPlug{listener: l.(*net.TCPListener)}
	if p.file, err = p.listener.File(); err != nil {
		l.Close()
		return nil, fmt.Errorf("open --listen: %w", err)
	}
	if a := l.Addr().(*net.TCPAddr); !a.IP.IsLoopback() {
		notice(fmt.Sprintf("--listen %s: other machines can connect, and the credential crosses the network in clear", a))
	}
	return p, nil
}

// variables tell programs where the proxy is.
func (p *listenPlug) variables(about keeper.Workload) []string {
	at := fmt.Sprintf("%s:%s@%s", forward.User, about.Password, p.listener.Addr())
	return []string{
		"HTTPS_PROXY=http://" + at, "https_proxy=http://" + at,
		"ALL_PROXY=socks5h://" + at, "all_proxy=socks5h://" + at, "NO_PROXY=", "no_proxy=",
	}
}

func (p *listenPlug) link() (*os.File, keeper.LinkKind) { return p.file, keeper.LinkListen }

func (p *listenPlug) prepare(keeper.Workload) error { return nil }

func (p *listenPlug) serve(ctx context.Context, _ *relay, _ keeper.Workload) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func (p *listenPlug) close() { p.listener.Close() }
