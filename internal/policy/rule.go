package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/cutoutdev/cutout/internal/hostname"
)

// A Direction is whose connections a rule speaks of.
type Direction string

// The directions. Egress is what the guest begins, ingress what comes to a
// published port.
const (
	Egress  Direction = "egress"
	Ingress Direction = "ingress"
	Both    Direction = "any"
)

// A Protocol is what a rule speaks of above IP.
type Protocol string

// The protocols; "" in a rule means all of them.
const (
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
	ICMP Protocol = "icmp"
)

// A Group is a named set of addresses.
type Group string

// The groups. Every address is in at most one of the first six, and this
// machine's own only in GroupHost, whatever else they are.
const (
	GroupPublic    Group = "public"
	GroupPrivate   Group = "private" // private networks and carrier-grade NAT
	GroupHost      Group = "host"    // every address of this machine, loopback among them
	GroupLinkLocal Group = "link-local"
	GroupMeta      Group = "meta"
	GroupMulticast Group = "multicast"
	GroupLoopback  Group = "loopback"
	GroupAny       Group = "any" // every address, but not the sandbox's resolver
	GroupDNS       Group = "dns" // the sandbox's resolver, which answers port 53 at every address
)

// Groups lists them all.
func Groups() []Group {
	return []Group{GroupPublic, GroupPrivate, GroupLoopback, GroupLinkLocal, GroupMeta, GroupMulticast, GroupHost, GroupAny, GroupDNS}
}

// A Target is what a rule is about: exactly one of the fields is set.
type Target struct {
	Group  Group            `json:"group,omitempty"`
	Prefix netip.Prefix     `json:"prefix,omitzero"`
	Name   hostname.Pattern `json:"name,omitzero"`
}

// Ports is a range with both ends.
type Ports struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
}

// A Rule allows or denies.
type Rule struct {
	Allow     bool      `json:"allow"`
	Direction Direction `json:"direction"`
	Target    Target    `json:"target"`
	Protocol  Protocol  `json:"protocol,omitempty"` // "" = all
	Ports     []Ports   `json:"ports,omitempty"`    // none = all; of the guest for ingress
}

func (t Target) String() string {
	switch {
	case t.Group != "":
		return string(t.Group)
	case t.Prefix.IsValid() && t.Prefix.IsSingleIP():
		return bracket(t.Prefix.Addr().String(), t.Prefix.Addr())
	case t.Prefix.IsValid():
		return bracket(t.Prefix.String(), t.Prefix.Addr())
	}
	return t.Name.String()
}

func bracket(s string, a netip.Addr) string {
	if a.Is6() {
		return "[" + s + "]"
	}
	return s
}

// String is the rule as users write it.
func (r Rule) String() string {
	var b strings.Builder
	b.WriteString(verb(r.Allow))
	if r.Direction != Egress {
		b.WriteString(":" + string(r.Direction))
	}
	b.WriteString("@" + r.Target.String())
	if r.Protocol != "" || r.Ports != nil {
		b.WriteString(":" + cmp.Or(string(r.Protocol), "any"))
	}
	for i, p := range r.Ports {
		b.WriteByte(":,"[min(i, 1)])
		fmt.Fprint(&b, p.First)
		if p.Last != p.First {
			fmt.Fprintf(&b, "-%d", p.Last)
		}
	}
	return b.String()
}

func verb(allow bool) string {
	if allow {
		return "allow"
	}
	return "deny"
}

// service reports whether r speaks of this direction, protocol and port.
func (r Rule) service(q Query) bool {
	return (r.Direction == Both || r.Direction == q.Direction) &&
		(r.Protocol == "" || r.Protocol == q.Protocol) &&
		(r.Ports == nil || r.names(q.Port))
}

// names reports whether r lists the port.
func (r Rule) names(port uint16) bool {
	return slices.ContainsFunc(r.Ports, func(p Ports) bool { return p.First <= port && port <= p.Last })
}

// covers reports whether what r says of its target is true of q. In doubt a
// rule that denies covers and one that allows does not: an address with
// several inside is allowed only if all are, and denied if one is.
func (r Rule) covers(q Query, s subject) bool {
	t := r.Target
	switch {
	case t.Group == GroupDNS:
		return false
	case t.Group == GroupAny:
		return true
	case t.Group != "":
		in := func(c Class) bool { return c.in(t.Group) }
		if r.Allow {
			return !slices.ContainsFunc(s.classes, func(c Class) bool { return !in(c) })
		}
		return slices.ContainsFunc(s.classes, in)
	case t.Prefix.IsValid():
		if len(s.forms) == 0 {
			return false
		}
		if r.Allow {
			return !slices.ContainsFunc(judged(s.forms), func(a netip.Addr) bool { return !t.Prefix.Contains(a) })
		}
		return slices.ContainsFunc(s.forms, t.Prefix.Contains)
	case q.Direction == Ingress:
		return false // a peer has no name
	case r.Allow:
		return s.trusted(q) && r.allowsName(q)
	}
	return r.deniesName(q)
}

// allowsName: the pin is needed, and the server name where there is one.
func (r Rule) allowsName(q Query) bool {
	if q.ServerName != "" {
		return r.Target.Name.Match(q.ServerName) && slices.Contains(q.Names, q.ServerName)
	}
	return slices.ContainsFunc(q.Names, r.Target.Name.Match)
}

// deniesName: the server name is enough, whatever the address. Without one
// an address that serves other names too is denied only when the guest has
// spoken and has not said which it means.
func (r Rule) deniesName(q Query) bool {
	match := r.Target.Name.Match
	switch {
	case q.ServerName != "":
		return match(q.ServerName)
	case q.Spoken:
		return slices.ContainsFunc(q.Names, match)
	}
	return len(q.Names) > 0 && !slices.ContainsFunc(q.Names, func(n hostname.Name) bool { return !match(n) })
}

// in reports whether addresses of class c are in group g.
func (c Class) in(g Group) bool {
	switch g {
	case GroupPublic:
		return c == ClassPublic
	case GroupPrivate:
		return c == ClassPrivate || c == ClassShared
	case GroupHost:
		return c == ClassHost || c == ClassLoopback
	case GroupLoopback:
		return c == ClassLoopback
	case GroupLinkLocal:
		return c == ClassLinkLocal
	case GroupMeta:
		return c == ClassMeta
	case GroupMulticast:
		return c == ClassMulticast || c == ClassBroadcast
	}
	return g == GroupAny
}
