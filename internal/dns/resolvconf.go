package dns

import (
	"bufio"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// resolvConf is the list of resolvers in a resolv.conf(5), read again when
// the file has changed, as it does when a laptop changes networks.
type resolvConf struct {
	mu      sync.Mutex
	checked time.Time
	read    time.Time // modification time of what was read
	list    []netip.AddrPort
}

// checkInterval is how often the file is looked at: a stat per query would
// cost little, but nobody changes networks faster.
const checkInterval = time.Second

// fallback is what resolv.conf(5) says for a file without nameservers.
var fallback = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}

func (c *resolvConf) resolvers(path string) []netip.AddrPort {
	if path == "" {
		path = "/etc/resolv.conf"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.list != nil && time.Since(c.checked) < checkInterval {
		return c.list
	}
	c.checked = time.Now()
	info, err := os.Stat(path)
	if err == nil && (c.list == nil || !info.ModTime().Equal(c.read)) {
		if list, err := parseResolvConf(path); err == nil {
			c.list, c.read = list, info.ModTime()
		}
	}
	if c.list == nil {
		return fallback
	}
	return c.list
}

func parseResolvConf(path string) ([]netip.AddrPort, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []netip.AddrPort
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			list = append(list, netip.AddrPortFrom(a, 53))
		}
	}
	if list == nil {
		list = fallback
	}
	return list, lines.Err()
}
