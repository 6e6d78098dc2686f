package agent

import (
	"net/netip"
	"os"

	"github.com/cutoutdev/cutout/internal/guest/wire"
)

// writeNames writes who we are and whom to ask, in place of the image's files.
func writeNames(c wire.Config) error {
	if err := os.MkdirAll("/etc", 0o755); err != nil {
		return err
	}
	hosts := "127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
	own := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 1, 1})}
	resolv := ""
	if n := c.Net; n != nil {
		own = nil
		for _, p := range []netip.Prefix{n.Addr4, n.Addr6} {
			if p.IsValid() {
				own = append(own, p.Addr())
			}
		}
		servers := n.DNS
		if len(servers) == 0 {
			servers = []netip.Addr{n.Gateway4, n.Gateway6}
		}
		for _, s := range servers {
			if s.IsValid() {
				resolv += "nameserver " + s.String() + "\n"
			}
		}
	}
	if c.Hostname != "" {
		for _, a := range own {
			hosts += a.String() + "\t" + c.Hostname + "\n"
		}
		if err := replace("/etc/hostname", c.Hostname+"\n"); err != nil {
			return err
		}
	}
	if err := replace("/etc/hosts", hosts); err != nil {
		return err
	}
	return replace("/etc/resolv.conf", resolv)
}
