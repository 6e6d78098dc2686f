package policy

import (
	"encoding/binary"
	"net/netip"
)

// A Class says in one word what kind of address an address is.
type Class string

// The classes. Only ClassPublic is reachable with the profile public.
const (
	ClassPublic        Class = "public"
	ClassHost          Class = "host" // this machine's own
	ClassLoopback      Class = "loopback"
	ClassPrivate       Class = "private"
	ClassShared        Class = "shared" // carrier-grade NAT
	ClassLinkLocal     Class = "link-local"
	ClassMeta          Class = "meta" // cloud metadata services
	ClassMulticast     Class = "multicast"
	ClassBroadcast     Class = "broadcast"
	ClassUnspecified   Class = "unspecified"
	ClassDocumentation Class = "documentation"
	ClassBenchmark     Class = "benchmark"
	ClassProtocol      Class = "protocol" // protocol assignments, anycast to near devices
	ClassTransition    Class = "transition"
	ClassReserved      Class = "reserved"
)

type span struct {
	prefix netip.Prefix
	class  Class
}

func spans(class Class, prefixes ...string) []span {
	out := make([]span, len(prefixes))
	for i, p := range prefixes {
		out[i] = span{netip.MustParsePrefix(p), class}
	}
	return out
}

func table(parts ...[]span) (all []span) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// special4 is the IANA IPv4 Special-Purpose Address Registry with multicast
// and the metadata services, most specific first where ranges nest. An
// address in none of them is public.
var special4 = table(
	// Azure's is a public address, Alibaba's and Oracle's lie in ranges that
	// are closed anyhow; all are named so that the reason is the right one.
	spans(ClassMeta, "169.254.169.254/32", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32"),
	spans(ClassUnspecified, "0.0.0.0/8"),
	spans(ClassPrivate, "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
	spans(ClassShared, "100.64.0.0/10"),
	spans(ClassLoopback, "127.0.0.0/8"),
	spans(ClassLinkLocal, "169.254.0.0/16"),
	// 192.0.0.9 and 192.0.0.10 are "globally reachable", but what answers is
	// the nearest NAT, which would open ports for the guest (RFC 7723).
	spans(ClassProtocol, "192.0.0.0/24"),
	spans(ClassDocumentation, "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"),
	spans(ClassTransition, "192.88.99.0/24"), // 6to4 relays, RFC 7526
	spans(ClassBenchmark, "198.18.0.0/15"),
	spans(ClassMulticast, "224.0.0.0/4"),
	spans(ClassBroadcast, "255.255.255.255/32"),
	spans(ClassReserved, "240.0.0.0/4"),
)

// special6 is the same for IPv6. An address in none of them is public only
// inside 2000::/3, all that is allocated as global unicast.
var special6 = table(
	spans(ClassMeta, "fd00:ec2::254/128"),
	spans(ClassUnspecified, "::/128"),
	spans(ClassLoopback, "::1/128"),
	spans(ClassTransition, "64:ff9b:1::/48"), // local-use NAT64, RFC 8215: where the IPv4 address stands is the site's choice
	spans(ClassReserved, "100::/64", "100:0:0:1::/64"),
	spans(ClassBenchmark, "2001:2::/48"),
	spans(ClassPublic, "2001:3::/32", "2001:4:112::/48", "2001:20::/28", "2001:30::/28"),
	spans(ClassProtocol, "2001::/23"), // PCP, TURN and SRP anycast, ORCHID
	spans(ClassDocumentation, "2001:db8::/32", "3fff::/20"),
	spans(ClassPrivate, "fc00::/7", "fec0::/10"), // fec0::/10: site-local, RFC 3879
	spans(ClassLinkLocal, "fe80::/10"),
	spans(ClassMulticast, "ff00::/8"),
	spans(ClassPublic, "2000::/3"),
)

// Classify returns the class of a. An address with an IPv4 address inside is
// public only if that one is public too, else it has that one's class.
func Classify(a netip.Addr) Class {
	if !a.IsValid() {
		return ClassReserved
	}
	if a.Zone() != "" {
		return ClassLinkLocal
	}
	all := forms(a)
	for _, inner := range all[1:] {
		if class := lookup(special4, inner, ClassPublic); class != ClassPublic {
			return class
		}
	}
	outer := all[0]
	switch {
	case outer.Is4():
		return lookup(special4, outer, ClassPublic)
	case len(all) > 1 && !localNAT64.Contains(outer):
		return ClassPublic // of the transition formats the inner address decides
	}
	return lookup(special6, outer, ClassReserved)
}

func lookup(list []span, a netip.Addr, otherwise Class) Class {
	for _, s := range list {
		if s.prefix.Contains(a) {
			return s.class
		}
	}
	return otherwise
}

var (
	compatible = netip.MustParsePrefix("::/96")           // RFC 4291 §2.5.5.1
	translated = netip.MustParsePrefix("::ffff:0:0:0/96") // RFC 2765 §2.1
	nat64      = netip.MustParsePrefix("64:ff9b::/96")    // RFC 6052 §2.1
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48")
	sixToFour  = netip.MustParsePrefix("2002::/16") // RFC 3056 §2
	teredo     = netip.MustParsePrefix("2001::/32") // RFC 4380 §4
)

// judged returns the addresses by which a rule judges a: the IPv4 addresses
// inside, or a itself if there are none or if where they stand is the site's
// choice.
func judged(all []netip.Addr) []netip.Addr {
	if len(all) == 1 || localNAT64.Contains(all[0]) {
		return all[:1]
	}
	return all[1:]
}

// forms returns a, unmapped and without zone, and the IPv4 addresses that it
// carries: where a packet to it may end after a translator or tunnel.
func forms(a netip.Addr) []netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return []netip.Addr{a}
	}
	b := a.As16()
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte(b[i : i+4])) }
	switch {
	case a.IsUnspecified(), a.IsLoopback():
	case compatible.Contains(a), translated.Contains(a), nat64.Contains(a), localNAT64.Contains(a):
		return []netip.Addr{a, at(12)}
	case sixToFour.Contains(a):
		return []netip.Addr{a, at(2)}
	case teredo.Contains(a):
		var client [4]byte // is written inverted
		binary.BigEndian.PutUint32(client[:], ^binary.BigEndian.Uint32(b[12:]))
		return []netip.Addr{a, at(4), netip.AddrFrom4(client)}
	}
	return []netip.Addr{a}
}
