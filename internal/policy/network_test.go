package policy

import (
	"net"
	"net/netip"
	"testing"
)

func nowhere(netip.Addr) bool { return false }

// registry holds every row of the IANA IPv4 and IPv6 Special-Purpose Address
// Registries with what the registry calls "Globally Reachable" (a dash where
// it says N/A), and our class.
var registry = []struct {
	prefix    string
	reachable string
	class     Class
}{
	{"0.0.0.0/8", "no", ClassUnspecified},
	{"0.0.0.0/32", "no", ClassUnspecified},
	{"10.0.0.0/8", "no", ClassPrivate},
	{"100.64.0.0/10", "no", ClassShared},
	{"127.0.0.0/8", "no", ClassLoopback},
	{"169.254.0.0/16", "no", ClassLinkLocal},
	{"172.16.0.0/12", "no", ClassPrivate},
	{"192.0.0.0/24", "no", ClassProtocol},
	{"192.0.0.0/29", "no", ClassProtocol},
	{"192.0.0.8/32", "no", ClassProtocol},
	{"192.0.0.9/32", "yes", ClassProtocol},  // PCP anycast: the nearest NAT
	{"192.0.0.10/32", "yes", ClassProtocol}, // TURN anycast
	{"192.0.0.170/32", "no", ClassProtocol},
	{"192.0.0.171/32", "no", ClassProtocol},
	{"192.0.2.0/24", "no", ClassDocumentation},
	{"192.31.196.0/24", "yes", ClassPublic},
	{"192.52.193.0/24", "yes", ClassPublic},
	{"192.88.99.0/24", "-", ClassTransition},
	{"192.88.99.2/32", "no", ClassTransition},
	{"192.168.0.0/16", "no", ClassPrivate},
	{"192.175.48.0/24", "yes", ClassPublic},
	{"198.18.0.0/15", "no", ClassBenchmark},
	{"198.51.100.0/24", "no", ClassDocumentation},
	{"203.0.113.0/24", "no", ClassDocumentation},
	{"240.0.0.0/4", "no", ClassReserved},
	{"255.255.255.255/32", "no", ClassBroadcast},

	{"::1/128", "no", ClassLoopback},
	{"::/128", "no", ClassUnspecified},
	{"::ffff:0:0/96", "no", ""},  // judged by the address inside
	{"64:ff9b::/96", "yes", ""},  // judged by the address inside
	{"64:ff9b:1::/48", "no", ""}, // never public, see TestEmbedded
	{"100::/64", "no", ClassReserved},
	{"100:0:0:1::/64", "no", ClassReserved},
	{"2001::/23", "no", ""}, // all of its public and transition parts follow
	{"2001::/32", "-", ""},  // Teredo, judged by the addresses inside
	{"2001:1::1/128", "yes", ClassProtocol},
	{"2001:1::2/128", "yes", ClassProtocol},
	{"2001:1::3/128", "yes", ClassProtocol},
	{"2001:2::/48", "no", ClassBenchmark},
	{"2001:3::/32", "yes", ClassPublic},
	{"2001:4:112::/48", "yes", ClassPublic},
	{"2001:10::/28", "-", ClassProtocol},
	{"2001:20::/28", "yes", ClassPublic},
	{"2001:30::/28", "yes", ClassPublic},
	{"2001:db8::/32", "no", ClassDocumentation},
	{"2002::/16", "-", ""}, // judged by the address inside
	{"2620:4f:8000::/48", "yes", ClassPublic},
	{"3fff::/20", "no", ClassDocumentation},
	{"5f00::/16", "no", ClassReserved},
	{"fc00::/7", "no", ClassPrivate},
	{"fe80::/10", "no", ClassLinkLocal},
}

// more is what the registries do not hold.
var more = []struct {
	prefix string
	class  Class
}{
	{"224.0.0.0/4", ClassMulticast},
	{"ff00::/8", ClassMulticast},
	{"169.254.169.254/32", ClassMeta},
	{"168.63.129.16/32", ClassMeta},
	{"100.100.100.200/32", ClassMeta},
	{"192.0.0.192/32", ClassMeta},
	{"fd00:ec2::254/128", ClassMeta},
	{"fec0::/10", ClassPrivate},    // site-local, RFC 3879
	{"200::/7", ClassReserved},     // NSAP, RFC 4048
	{"4000::/3", ClassReserved},    // not allocated
	{"8000::/2", ClassReserved},    //
	{"f000::/5", ClassReserved},    //
	{"0:1::/32", ClassReserved},    //
	{"1.1.1.1/32", ClassPublic},    //
	{"8.0.0.0/9", ClassPublic},     //
	{"100.128.0.0/9", ClassPublic}, // just above the shared range
	{"172.32.0.0/11", ClassPublic},
	{"198.20.0.0/14", ClassPublic},
	{"223.255.255.0/24", ClassPublic},
	{"2606:4700::/32", ClassPublic},
	{"2a00::/12", ClassPublic},
	{"2001:200::/23", ClassPublic}, // just above 2001::/23
}

// ends returns the first and the last address of p.
func ends(p netip.Prefix) []netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return []netip.Addr{p.Addr(), last}
}

func TestRegistry(t *testing.T) {
	n := NewNetwork(ProfilePublic)
	n.Local = nowhere
	for _, row := range registry {
		if row.class == "" {
			continue
		}
		if row.class == ClassPublic && row.reachable != "yes" {
			t.Errorf("%s: public, though not globally reachable", row.prefix)
		}
		for _, a := range ends(netip.MustParsePrefix(row.prefix)) {
			want := row.class
			if a == netip.MustParseAddr("255.255.255.255") {
				want = ClassBroadcast
			}
			v := n.Address(a)
			if v.Class != want || v.Allowed != (want == ClassPublic) || v.Allowed == (v.Reason == AddressDenied) {
				t.Errorf("%v of %s: %+v, want %s", a, row.prefix, v, want)
			}
		}
	}
	for _, row := range more {
		for _, a := range ends(netip.MustParsePrefix(row.prefix)) {
			if v := n.Address(a); v.Class != row.class || v.Allowed != (row.class == ClassPublic) {
				t.Errorf("%v of %s: %+v, want %s", a, row.prefix, v, row.class)
			}
		}
	}
}

// embed returns every IPv6 form of an IPv4 address.
func embed(t *testing.T, s string) map[string]netip.Addr {
	t.Helper()
	v4 := netip.MustParseAddr(s).As4()
	put := func(prefix string, at int, mask byte) netip.Addr {
		b := netip.MustParseAddr(prefix).As16()
		for i, c := range v4 {
			b[at+i] = c ^ mask
		}
		return netip.AddrFrom16(b)
	}
	return map[string]netip.Addr{
		"mapped":         put("::ffff:0:0", 12, 0),
		"compatible":     put("::", 12, 0),
		"translated":     put("::ffff:0:0:0", 12, 0),
		"NAT64":          put("64:ff9b::", 12, 0),
		"6to4":           put("2002::", 2, 0),
		"Teredo client":  put("2001:0:808:808::", 12, 0xff),
		"Teredo server":  put("2001::f7f7:f7f7", 4, 0),
		"mapped, zone":   put("::ffff:0:0", 12, 0).WithZone("eth0"),
		"6to4, sub-nets": put("2002::1:2:3:4", 2, 0),
	}
}

func TestEmbedded(t *testing.T) {
	n := NewNetwork(ProfilePublic)
	n.Local = func(a netip.Addr) bool { return a == netip.MustParseAddr("7.7.7.7") }
	for _, inner := range []string{
		"127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "168.63.129.16", "7.7.7.7", "255.255.255.255", "224.0.0.251",
	} {
		for form, a := range embed(t, inner) {
			if v := n.Address(a); v.Allowed {
				t.Errorf("%v, %s of %s: %+v", a, form, inner, v)
			}
		}
		if a := netip.MustParseAddr("64:ff9b:1::808:808"); n.Address(a).Allowed {
			t.Errorf("local-use NAT64 is allowed")
		}
	}
	for form, a := range embed(t, "8.8.4.4") {
		if v := n.Address(a); !v.Allowed && form != "mapped, zone" {
			t.Errorf("%v, %s of 8.8.4.4: %+v", a, form, v)
		}
	}
	if v := n.Address(netip.MustParseAddr("64:ff9b::a9fe:a9fe")); v.Class != ClassMeta {
		t.Errorf("NAT64 of the metadata service is %s", v.Class)
	}
}

func TestOwnAddresses(t *testing.T) {
	n := &Network{Local: func(a netip.Addr) bool {
		return a == netip.MustParseAddr("8.8.8.8") || a == netip.MustParseAddr("2606:4700::1")
	}}
	for _, s := range []string{"8.8.8.8", "::ffff:8.8.8.8", "2606:4700::1", "64:ff9b::808:808"} {
		if v := n.Address(netip.MustParseAddr(s)); v.Allowed || v.Class != ClassHost {
			t.Errorf("%s: %+v", s, v)
		}
	}
	// The zero Network asks the machine.
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		addr, _ := netip.AddrFromSlice(a.(*net.IPNet).IP)
		if !machine.has(addr.Unmap()) {
			t.Errorf("%v is not known as this machine's", addr)
		}
		if v := new(Network).Address(addr); v.Allowed {
			t.Errorf("%v: %+v", addr, v)
		}
	}
}

func TestProfiles(t *testing.T) {
	public := netip.MustParseAddr("8.8.8.8")
	if v := NewNetwork(ProfileNone).Address(public); v.Allowed || v.Reason != NetworkOff {
		t.Errorf("none: %+v", v)
	}
	if v := (&Network{Profile: "unknown", Local: nowhere}).Address(public); v.Allowed {
		t.Error("an unknown profile allows")
	}
	if v := (&Network{}).Address(netip.Addr{}); v.Allowed {
		t.Error("no address is allowed")
	}
	for _, s := range []string{"public", "private", "host", "all", "none"} {
		if p, err := ParseProfile(s); err != nil || string(p) != s {
			t.Errorf("ParseProfile(%q) = %v, %v", s, p, err)
		}
	}
	for _, s := range []string{"", "Public", "any"} {
		if _, err := ParseProfile(s); err == nil {
			t.Errorf("ParseProfile(%q) passed", s)
		}
	}
}

func BenchmarkAddress(b *testing.B) {
	n := NewNetwork(ProfilePublic)
	a := netip.MustParseAddr("2606:4700::1")
	for b.Loop() {
		n.Address(a)
	}
}
