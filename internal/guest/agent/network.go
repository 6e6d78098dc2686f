package agent

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/cutoutdev/cutout/internal/guest/wire"
	"github.com/cutoutdev/cutout/internal/rtnetlink"
)

// configureNet brings the loopback up and, unless n is nil, the interface with
// n's hardware address: static, and usable at once.
func configureNet(n *wire.Net) error {
	b := &rtnetlink.Batch{}
	if lo, err := interfaceIndex("lo"); err == nil {
		b.Up(lo, 0)
	}
	if n != nil {
		name, err := findInterface(n.MAC)
		if err != nil {
			return err
		}
		index, err := interfaceIndex(name)
		if err != nil {
			return err
		}
		quietIPv6(name)
		b.Up(index, n.MTU)
		for _, a := range []struct {
			addr    netip.Prefix
			gateway netip.Addr
		}{{n.Addr4, n.Gateway4}, {n.Addr6, n.Gateway6}} {
			if a.addr.IsValid() {
				b.Address(index, a.addr)
			}
			if a.gateway.IsValid() {
				b.DefaultRoute(index, a.gateway)
			}
		}
	}
	if err := b.Send(); err != nil {
		return fmt.Errorf("configure the network: %w", err)
	}
	return nil
}

// quietIPv6 turns off all that would make the interface wait for, or believe,
// anybody else on its link, which only the host is on.
func quietIPv6(name string) {
	conf := "/proc/sys/net/ipv6/conf/" + name + "/"
	writeKernel(conf+"accept_dad", "0")
	writeKernel(conf+"accept_ra", "0")
	writeKernel(conf+"autoconf", "0")
	writeKernel(conf+"accept_redirects", "0")
	writeKernel(conf+"router_solicitations", "0")
}

func interfaceIndex(name string) (int, error) {
	index, err := readKernel("/sys/class/net/" + name + "/ifindex")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(index)
}

// findInterface finds the interface with that hardware address; the kernel
// names them eth0 and so on.
func findInterface(mac string) (string, error) {
	for n := range 8 {
		name := "eth" + strconv.Itoa(n)
		got, err := readKernel("/sys/class/net/" + name + "/address")
		if err == nil && strings.EqualFold(got, mac) {
			return name, nil
		}
	}
	return "", fmt.Errorf("configure the network: no interface with address %s", mac)
}
