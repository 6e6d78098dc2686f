package testnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
)

// Routes are where the addresses of a test's internet lead. The zero Routes
// lead nowhere. It is safe for concurrent use.
type Routes struct {
	mu     sync.Mutex
	to     map[netip.AddrPort]netip.AddrPort
	dialed []netip.AddrPort
}

// Set makes addr lead to real; the zero AddrPort makes it lead nowhere.
func (r *Routes) Set(addr, real netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.to == nil {
		r.to = make(map[netip.AddrPort]netip.AddrPort)
	}
	r.to[addr] = real
}

// Dial opens a connection to where dst leads. Every dst is remembered.
func (r *Routes) Dial(ctx context.Context, dst netip.AddrPort) (net.Conn, error) {
	r.mu.Lock()
	r.dialed = append(r.dialed, dst)
	real := r.to[dst]
	r.mu.Unlock()
	if !real.IsValid() {
		return nil, errors.New("no such host")
	}
	return new(net.Dialer).DialContext(ctx, "tcp", real.String())
}

// Note remembers a dst that somebody else opened a socket to.
func (r *Routes) Note(dst netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dialed = append(r.dialed, dst)
}

// Dialed returns what was dialled so far.
func (r *Routes) Dialed() []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.dialed)
}
