package keeper

import (
	"net/netip"
	"sync"

	"github.com/cutoutdev/cutout/internal/hostname"
)

// maxUnresolved bounds the names that the upstream proxy resolves: as many as
// a sandbox has pins.
const maxUnresolved = 4096

// unresolved gives addresses to names that no resolver here knows. Each keeps
// its own until the end, so that an address never comes to mean another name.
type unresolved struct {
	plan *plan

	mu    sync.Mutex
	names map[hostname.Name][]netip.Addr
	owner map[netip.Addr]hostname.Name
}

func newUnresolved(p *plan) *unresolved {
	return &unresolved{plan: p, names: make(map[hostname.Name][]netip.Addr), owner: make(map[netip.Addr]hostname.Name)}
}

// addresses returns those of name; ok is false if there are no more.
func (u *unresolved) addresses(name hostname.Name) (addrs []netip.Addr, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if addrs, ok = u.names[name]; ok {
		return addrs, true
	}
	n := uint32(len(u.names))
	if n == maxUnresolved {
		return nil, false
	}
	addrs = []netip.Addr{v4(198<<24 | 18<<16 | 128<<8 | n), u.plan.v6(1<<18 | n)}
	u.names[name] = addrs
	for _, a := range addrs {
		u.owner[a] = name
	}
	return addrs, true
}

// name returns the name that an address stands for.
func (u *unresolved) name(a netip.Addr) (hostname.Name, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	name, ok := u.owner[a]
	return name, ok
}
