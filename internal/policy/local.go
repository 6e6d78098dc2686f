package policy

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// machine are this machine's addresses, shared by all sandboxes of a process.
var machine localAddrs

// localTTL is how long a list of addresses is believed: short against the
// time in which an interface comes up and is found, long against the 100 µs
// that asking takes.
const localTTL = time.Second

type localAddrs struct {
	mu    sync.Mutex
	asked time.Time
	addrs map[netip.Addr]bool
}

// has reports whether a is an address of this machine. If the machine does
// not tell, every address is: a gate whose machinery fails is closed.
func (l *localAddrs) has(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.addrs == nil || time.Since(l.asked) > localTTL {
		addrs, err := interfaceAddrs()
		if err != nil {
			l.addrs = nil
			return true
		}
		l.addrs, l.asked = addrs, time.Now()
	}
	return l.addrs[a]
}

func interfaceAddrs() (map[netip.Addr]bool, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	addrs := make(map[netip.Addr]bool, len(list))
	for _, a := range list {
		if ipnet, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(ipnet.IP); ok {
				addrs[addr.Unmap()] = true
			}
		}
	}
	return addrs, nil
}
