package testnet

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	"github.com/cutoutdev/cutout/internal/forward"
	"github.com/cutoutdev/cutout/internal/splice"
)

// A Proxy is an upstream proxy that speaks CONNECT and SOCKS5, for whoever
// has its credential, and knows where names are by itself.
type Proxy struct {
	l, secure net.Listener
	end       context.CancelFunc

	mu    sync.Mutex
	to    map[string]netip.AddrPort
	asked []string
}

// ProxyLogin is the credential of every Proxy.
const ProxyLogin = forward.User + ":pr0xy-p4ssword-of-the-test"

// StartProxy starts one whose names, or addresses, are where to says, by
// HOST:PORT. With a certificate it can be reached over TLS too.
func StartProxy(to map[string]netip.AddrPort, cert *tls.Certificate) (*Proxy, error) {
	l, err := listen(netip.AddrPort{})
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(context.Background())
	p := &Proxy{l: l, to: to, end: end}
	s := &forward.Server{Password: ProxyLogin[len(forward.User)+1:], Serve: p.serve}
	go s.Run(ctx, l)
	if cert == nil {
		return p, nil
	}
	if p.secure, err = tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*cert}}); err != nil {
		end()
		return nil, err
	}
	go func() {
		for {
			c, err := p.secure.Accept()
			if err != nil {
				return
			}
			go func() {
				plain, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					c.Close()
					return
				}
				splice.Join(c, plain)
			}()
		}
	}()
	return p, nil
}

func (p *Proxy) serve(_ context.Context, _ netip.AddrPort, t forward.Target, accept func() (net.Conn, error)) {
	host := string(t.Name)
	if host == "" {
		host = t.Addr.String()
	}
	asked := net.JoinHostPort(host, strconv.Itoa(int(t.Port)))
	p.mu.Lock()
	p.asked = append(p.asked, asked)
	to, ok := p.to[asked]
	p.mu.Unlock()
	if !ok {
		return
	}
	up, err := net.Dial("tcp", to.String())
	if err != nil {
		return
	}
	if c, err := accept(); err == nil {
		splice.Join(c, up)
	}
}

// Asked returns what was asked for so far, HOST:PORT.
func (p *Proxy) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

// Addr is where it is, HOST:PORT.
func (p *Proxy) Addr() string { return p.l.Addr().String() }

// SecureAddr is where it is over TLS.
func (p *Proxy) SecureAddr() string { return p.secure.Addr().String() }

// Close ends it.
func (p *Proxy) Close() {
	p.end()
	if p.secure != nil {
		p.secure.Close()
	}
}
