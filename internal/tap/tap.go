// Package tap makes the network interface of a workload that is no machine of
// ours: a TAP device in the workload's network namespace, whose other end is
// a descriptor. The device, its addresses and routes are gone when the
// descriptor is closed.
package tap

import "net/netip"

// An Address is an interface's address with the gateway of its family.
type Address struct {
	Prefix  netip.Prefix
	Gateway netip.Addr
	Route   bool // the gateway is that of the default route
}
