package policy

import (
	"fmt"
	"net/netip"
)

// A Profile is a named set of network rules.
type Profile string

// The profiles.
const (
	ProfilePublic Profile = "public" // globally reachable unicast addresses; the default
	ProfileNone   Profile = "none"   // nothing
)

// ParseProfile reads the name of a profile.
func ParseProfile(s string) (Profile, error) {
	switch p := Profile(s); p {
	case ProfilePublic, ProfileNone:
		return p, nil
	}
	return "", fmt.Errorf("unknown network profile %q: use public or none", s)
}

// A Network decides which addresses a sandbox may reach. The zero Network has
// the profile public. Its methods may be called from several goroutines.
type Network struct {
	// Profile is the rule set; "" = ProfilePublic.
	Profile Profile
	// Local reports whether an address is one of this machine's own; nil:
	// ask the machine, at most once a second.
	Local func(netip.Addr) bool
}

// NewNetwork returns the network of a profile that knows this machine's
// addresses.
func NewNetwork(profile Profile) *Network {
	return &Network{Profile: profile}
}

// A Verdict says whether an address may be reached and, if not, why.
type Verdict struct {
	Allowed bool
	Reason  Reason // None if Allowed
	Class   Class  // what the address is, also if Allowed
}

// Address judges a, which is the address finally dialled. An IPv6 address
// that carries an IPv4 address is judged by both.
func (n *Network) Address(a netip.Addr) Verdict {
	class := n.classify(a)
	switch {
	case n.Profile == ProfileNone:
		return Verdict{Reason: NetworkOff, Class: class}
	case n.Profile != ProfilePublic && n.Profile != "", class != ClassPublic:
		return Verdict{Reason: AddressDenied, Class: class}
	}
	return Verdict{Allowed: true, Class: class}
}

// Off reports whether nothing may be reached at all.
func (n *Network) Off() bool { return n.Profile == ProfileNone }

// classify looks for this machine's addresses after the special ranges, so
// that 127.0.0.1 is called loopback, and in every form of an address.
func (n *Network) classify(a netip.Addr) Class {
	class := Classify(a)
	if class != ClassPublic {
		return class
	}
	local := n.Local
	if local == nil {
		local = machine.has
	}
	for _, form := range forms(a) {
		if local(form) {
			return ClassHost
		}
	}
	return ClassPublic
}
