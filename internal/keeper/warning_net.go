package keeper

import (
	"net/netip"
	"slices"

	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// warnings says what of n opens more than public addresses, and what of the
// secrets cannot be reached with it.
func (n Net) warnings(secrets []secret.Secret, warn func(string, ...any)) {
	switch n.Profile {
	case policy.ProfilePrivate:
		warn("the guest may reach every private network that this machine can")
	case policy.ProfileHost:
		warn("the guest may reach every port of this machine, those of loopback too")
	case policy.ProfileAll:
		warn("the guest may reach whatever this machine can: its own ports, private networks, metadata services")
	}
	for _, r := range n.Rules {
		if r.Allow && r.Direction != policy.Ingress {
			warnRule(r, warn)
		}
	}
	if e := n.Egress; e != nil && e.Login && e.Clear() {
		warn("the credential of the upstream proxy goes to it unencrypted: everybody on the way can read it")
	}
	if n.Egress != nil && n.Egress.Names {
		warn("names that no resolver here knows are reached where the upstream proxy says, which no rule about addresses can judge")
	}
	p := n.Policy()
	n.warnPublished(warn)
	for _, s := range secrets {
		for _, h := range s.Hosts {
			name := h.Pattern.Base()
			connected := slices.ContainsFunc(n.ConnectTo, func(c ConnectTo) bool { return h.Pattern.Match(c.Name) })
			if h.Pattern.Wildcard() || connected || p.Off() {
				continue
			}
			if v := p.Lookup(name, false, true); !v.Allowed {
				warn("%s can go nowhere at %s: %s (%s)", s.Name, name, v.Reason.What(), v.Rule)
			}
		}
	}
}

// warnPublished names ports that more than this machine's users come to, and
// those to which nobody can.
func (n Net) warnPublished(warn func(string, ...any)) {
	closed := n.DenyIngress && !slices.ContainsFunc(n.Rules, func(r policy.Rule) bool { return r.Allow && r.Direction != policy.Egress })
	for _, x := range n.Published {
		switch {
		case closed:
			warn("nobody can come to the published port %s: no rule allows it", x)
		case !x.Listen.Addr().IsLoopback():
			warn("other machines may come to the published port %s", x)
		}
	}
}

// outside is a public address, to ask whether a rule opens others too.
var outside = netip.MustParsePrefix("2000::/3")

func warnRule(r policy.Rule, warn func(string, ...any)) {
	t := r.Target
	switch {
	case t.Group == policy.GroupPublic, t.Group == policy.GroupDNS, t.Name.Base() != "" && !t.Name.Match(policy.HostName):
	case t.Group != "", t.Name.Base() != "":
		warn("the guest may reach addresses that are not public: %s", r)
	case policy.Classify(t.Prefix.Addr()) != policy.ClassPublic || t.Prefix.Bits() < 8 || !outside.Overlaps(t.Prefix) && t.Prefix.Addr().Is6():
		warn("the guest may reach addresses that are not public: %s", r)
	}
	if (r.Protocol == policy.TCP || r.Protocol == policy.UDP) && slices.ContainsFunc(r.Ports, func(p policy.Ports) bool { return p.First <= 853 && 853 <= p.Last }) {
		warn("the guest may ask resolvers in private, whose answers count for nothing here: %s", r)
	}
}
