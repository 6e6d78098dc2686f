//go:build linux

package boundary

import (
	"net"
	"net/netip"

	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
)

// Plug connects a guest to the socket of --unix, with the addresses that env
// tells.
func Plug(socket string, env map[string]string) (*netstacktest.Guest, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	cfg := netstack.Config{}
	for name, into := range map[string]*netip.Prefix{"CUTOUT_ADDRESS4": &cfg.Guest4, "CUTOUT_ADDRESS6": &cfg.Guest6} {
		if *into, err = netip.ParsePrefix(env[name]); err != nil {
			return nil, err
		}
	}
	for name, into := range map[string]*netip.Addr{"CUTOUT_GATEWAY4": &cfg.Gateway4, "CUTOUT_GATEWAY6": &cfg.Gateway6} {
		if *into, err = netip.ParseAddr(env[name]); err != nil {
			return nil, err
		}
	}
	return netstacktest.New(conn, cfg)
}
