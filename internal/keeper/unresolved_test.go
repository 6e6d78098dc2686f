package keeper

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/cutoutdev/cutout/internal/hostname"
)

// TestUnresolvedAddresses: every name has addresses of its own, in the
// sandbox's own ranges and apart from all others there, and keeps them; they
// run out instead of being used again.
func TestUnresolvedAddresses(t *testing.T) {
	var names []ConnectTo
	for i := range 1000 {
		names = append(names, ConnectTo{Name: hostname.Name(fmt.Sprintf("mock%d.test", i)), Port: 443})
	}
	p := newPlan(names)
	u := newUnresolved(p)
	taken := map[netip.Addr]bool{p.gateway4: true, p.gateway6: true, p.guest4.Addr(): true, p.guest6.Addr(): true}
	for _, addrs := range p.names {
		for _, a := range addrs {
			taken[a] = true
		}
	}
	for i := range maxUnresolved {
		name := hostname.Name(fmt.Sprintf("n%d.test", i))
		addrs, ok := u.addresses(name)
		if again, _ := u.addresses(name); !ok || len(addrs) != 2 || !slices.Equal(again, addrs) {
			t.Fatalf("%s: %v, %v", name, addrs, again)
		}
		for _, a := range addrs {
			if taken[a] || !slices.ContainsFunc(p.own(), func(x netip.Prefix) bool { return x.Contains(a) }) {
				t.Fatalf("%s: %s", name, a)
			}
			taken[a] = true
			if owner, ok := u.name(a); !ok || owner != name {
				t.Fatalf("%s is of %q", a, owner)
			}
			if _, ok := p.host(netip.AddrPortFrom(a, 80)); ok {
				t.Fatalf("%s is the host's", a)
			}
		}
	}
	if addrs, ok := u.addresses("more.test"); ok {
		t.Errorf("more.test has %v", addrs)
	}
	if _, ok := u.name(p.gateway4); ok {
		t.Error("the gateway is a name's")
	}
}
