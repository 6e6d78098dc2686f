package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/cutoutdev/cutout/internal/hostname"
)

// A Profile is a named set of network rules, asked after the user's own.
type Profile string

// The profiles.
const (
	ProfilePublic  Profile = "public"  // globally reachable unicast addresses; the default
	ProfilePrivate Profile = "private" // public, and private networks
	ProfileHost    Profile = "host"    // public, and this machine
	ProfileAll     Profile = "all"     // everything
	ProfileNone    Profile = "none"    // nothing
)

// Profiles lists them all.
func Profiles() []Profile {
	return []Profile{ProfilePublic, ProfilePrivate, ProfileHost, ProfileAll, ProfileNone}
}

// groups are what a profile allows.
var groups = map[Profile][]Group{
	ProfilePublic:  {GroupPublic},
	ProfilePrivate: {GroupPublic, GroupPrivate},
	ProfileHost:    {GroupPublic, GroupHost},
	ProfileAll:     {GroupAny},
}

// ParseProfile reads the name of a profile.
func ParseProfile(s string) (Profile, error) {
	if p := Profile(s); slices.Contains(Profiles(), p) {
		return p, nil
	}
	return "", fmt.Errorf("unknown network profile %q: use public, private, host, all or none", s)
}

// HostName is the name of this machine's loopback. Its address is judged as
// 127.0.0.1 and ::1 are.
const HostName hostname.Name = "host.cutout.internal"

// A Network decides what a sandbox may reach and who may reach it. The zero
// Network has the profile public. Its methods may be called from several
// goroutines.
type Network struct {
	// Rules are the user's; the first that matches decides.
	Rules []Rule
	// Profile decides on what the guest begins where no rule does;
	// "" = ProfilePublic.
	Profile Profile
	// DenyIngress denies connections to published ports where no rule
	// decides.
	DenyIngress bool
	// Own are the sandbox's own addresses. They are never let out: nobody
	// else is meant by them.
	Own []netip.Prefix
	// Local reports whether an address is one of this machine's own; nil:
	// ask the machine, at most once a second.
	Local func(netip.Addr) bool
}

// NewNetwork returns the network of a profile that knows this machine's
// addresses.
func NewNetwork(profile Profile) *Network {
	return &Network{Profile: profile}
}

// A Query is a connection, datagram or ping that somebody wants to pass.
type Query struct {
	Direction Direction
	Protocol  Protocol
	Addr      netip.Addr // finally dialled; for ingress the peer's
	Port      uint16     // dialled; for ingress the guest's; 0 for ICMP

	// Unresolved: Addr stands for a name whose addresses nobody here knows,
	// and is judged as a public one that no rule about addresses is for.
	Unresolved bool

	Names      []hostname.Name // that Addr is pinned for
	ServerName hostname.Name   // that the guest has asked for in TLS, if any
	Spoken     bool            // the guest has spoken: ServerName is final
}

// A Verdict says whether something may pass and, if not, why.
type Verdict struct {
	Allowed bool   `json:"allowed"`
	Reason  Reason `json:"reason,omitempty"` // None if Allowed
	Class   Class  `json:"class,omitempty"`  // what the address is, also if Allowed
	Rule    string `json:"rule"`             // what decided, as users write it
}

// Decide judges q by the first rule that matches, then the profile.
func (n *Network) Decide(q Query) Verdict {
	s := n.subject(q.Addr)
	if q.Unresolved {
		s = subject{classes: []Class{ClassPublic}}
	}
	v := Verdict{Class: s.class(), Rule: "boundary"}
	if !q.Unresolved && n.never(q, s) {
		v.Reason = AddressDenied
		return v
	}
	for _, r := range n.Rules {
		if r.service(q) && r.covers(q, s) {
			switch {
			case !r.Allow:
				v.Rule, v.Reason = r.String(), RuleDenied
			case q.Blind() && !(r.Protocol == q.Protocol && r.names(q.Port)):
				v.Reason = ProtocolDenied
			default:
				v.Rule, v.Allowed = r.String(), true
			}
			return v
		}
	}
	if v := n.fallback(q, s, v); !v.Allowed || !q.Blind() {
		return v
	}
	v.Reason = ProtocolDenied
	return v
}

// fallback is for what no rule decides.
func (n *Network) fallback(q Query, s subject, v Verdict) Verdict {
	if q.Direction == Ingress {
		v.Rule, v.Allowed = "default "+verb(!n.DenyIngress), !n.DenyIngress
		if !v.Allowed {
			v.Reason = AddressDenied
		}
		return v
	}
	v.Rule = "profile " + string(n.profile())
	for _, g := range groups[n.profile()] {
		if (Rule{Allow: true, Target: Target{Group: g}}).covers(q, s) {
			v.Allowed = true
			return v
		}
	}
	v.Reason = AddressDenied
	if n.Off() {
		v.Reason = NetworkOff
	}
	return v
}

// never: what no rule can let out. 0.0.0.0 is this machine to Linux, a group
// is nobody that a flow could be with.
func (n *Network) never(q Query, s subject) bool {
	if q.Direction == Ingress {
		return false
	}
	return !q.Addr.IsValid() || q.Addr.Zone() != "" ||
		slices.ContainsFunc(s.classes, func(c Class) bool { return c == ClassUnspecified || c.in(GroupMulticast) }) ||
		slices.ContainsFunc(n.Own, func(p netip.Prefix) bool { return slices.ContainsFunc(s.forms, p.Contains) })
}

// Ports of protocols that hide names or content from the boundary, or mean
// something on a local link only. Clients fall back when refused. A rule that
// allows one must name it.
var (
	blindTCP = []uint16{853}                            // DNS over TLS
	blindUDP = []uint16{443, 853, 137, 138, 5353, 5355} // QUIC, DNS over QUIC, NetBIOS, mDNS, LLMNR
)

// Blind reports whether q is of a protocol that the boundary cannot look into.
func (q Query) Blind() bool {
	return q.Direction == Egress &&
		(q.Protocol == TCP && slices.Contains(blindTCP, q.Port) || q.Protocol == UDP && slices.Contains(blindUDP, q.Port))
}

// Address judges an address as the answer to a question for names: whether
// any service there could be reached under them.
func (n *Network) Address(a netip.Addr, names ...hostname.Name) Verdict {
	q := Query{Direction: Egress, Addr: a, Names: names}
	s := n.subject(a)
	v := Verdict{Class: s.class(), Rule: "boundary", Reason: AddressDenied}
	if n.never(q, s) {
		return v
	}
	for _, r := range n.Rules {
		if r.Direction == Ingress || !r.covers(q, s) || !r.Allow && (r.Protocol != "" || r.Ports != nil) {
			continue
		}
		v.Rule, v.Allowed, v.Reason = r.String(), r.Allow, None
		if !r.Allow {
			v.Reason = RuleDenied
		}
		return v
	}
	v.Reason = None
	return n.fallback(q, s, v)
}

// Lookup judges a question for name, of which no address is known yet. A name
// that can be reached at no address is not asked for: the question itself
// would carry something out. With only, nor is one that neither a rule names
// nor, as mentioned says, a secret.
func (n *Network) Lookup(name hostname.Name, only, mentioned bool) Verdict {
	if n.Off() {
		return Verdict{Reason: NetworkOff, Rule: "profile none"}
	}
	if v := n.resolver(); !v.Allowed {
		return v
	}
	byAddress := n.profile() != ProfileNone
	for _, r := range n.Rules {
		switch {
		case r.Direction == Ingress:
		case r.Target.Name.Match(name) && r.Allow:
			return Verdict{Allowed: true, Rule: r.String()}
		case r.Target.Name.Match(name) && r.Protocol == "" && r.Ports == nil:
			return Verdict{Reason: RuleDenied, Rule: r.String()}
		case r.Allow && r.Target.Name == hostname.Pattern{} && r.Target.Group != GroupDNS:
			byAddress = true
		}
	}
	switch {
	case only && !mentioned:
		return Verdict{Reason: NameDenied, Rule: "--dns-only-allowed"}
	case !byAddress:
		return Verdict{Reason: NameDenied, Rule: "profile none"}
	}
	return Verdict{Allowed: true, Rule: "profile " + string(n.profile())}
}

// resolver judges the sandbox's own resolver, which only rules about it do:
// deny@any closes no name that an earlier rule opens.
func (n *Network) resolver() Verdict {
	for _, r := range n.Rules {
		if r.Target.Group == GroupDNS && r.Direction != Ingress {
			v := Verdict{Allowed: r.Allow, Rule: r.String()}
			if !r.Allow {
				v.Reason = RuleDenied
			}
			return v
		}
	}
	return Verdict{Allowed: true}
}

// Mentions reports whether some rule names name.
func (n *Network) Mentions(name hostname.Name) bool {
	return slices.ContainsFunc(n.Rules, func(r Rule) bool { return r.Target.Name.Match(name) })
}

// ByName reports whether some rule is about names, so that what the guest
// says matters.
func (n *Network) ByName() bool {
	return slices.ContainsFunc(n.Rules, func(r Rule) bool { return r.Target.Name != hostname.Pattern{} })
}

// Off reports whether nothing may be reached at all.
func (n *Network) Off() bool {
	return n.Profile == ProfileNone && !slices.ContainsFunc(n.Rules, func(r Rule) bool { return r.Allow && r.Direction != Ingress })
}

func (n *Network) profile() Profile {
	if n.Profile == "" {
		return ProfilePublic
	}
	return n.Profile
}

// A subject is an address with what is known of it.
type subject struct {
	forms   []netip.Addr // itself, then those inside
	classes []Class      // of what is judged, see judged
}

func (n *Network) subject(a netip.Addr) subject {
	if !a.IsValid() || a.Zone() != "" {
		return subject{classes: []Class{Classify(a)}}
	}
	s := subject{forms: forms(a)}
	if localNAT64.Contains(s.forms[0]) {
		// Where the IPv4 address stands is the site's choice: what stands in
		// the usual place can only make it worse.
		s.classes = []Class{ClassTransition, n.classify(s.forms[1])}
		return s
	}
	for _, f := range judged(s.forms) {
		s.classes = append(s.classes, n.classify(f))
	}
	return s
}

// class is that of the address on the whole: of a closed one inside, if there
// is one.
func (s subject) class() Class {
	for _, c := range s.classes {
		if c != ClassPublic {
			return c
		}
	}
	return ClassPublic
}

// trusted reports whether a name may open the address. A name is its owner's
// to point anywhere, at a private address too: such a one takes a rule about
// addresses. The name of this machine's loopback is ours.
func (s subject) trusted(q Query) bool {
	return s.class() == ClassPublic || slices.Contains(q.Names, HostName)
}

// classify is Classify with this machine's own addresses, which are only
// that: a private address of this machine is not one of a private network.
func (n *Network) classify(a netip.Addr) Class {
	local := n.Local
	if local == nil {
		local = machine.has
	}
	switch class := Classify(a); class {
	case ClassMeta, ClassLoopback, ClassUnspecified, ClassMulticast, ClassBroadcast:
		return class
	default:
		if local(a) {
			return ClassHost
		}
		return class
	}
}
