package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/policy"
)

// Network is what flags say about the network, unparsed. Its zero value is
// the profile public.
type Network struct {
	Off            bool     // --no-net, the profile none
	Profile        string   // public, private, host, all or none
	Rules          []string // allow|deny[:DIRECTION]@TARGET[:PROTO[:PORTS]]
	Default        string   // allow or deny, both directions
	DefaultEgress  string
	DefaultIngress string
}

const ruleUsage = "write allow@TARGET or deny@TARGET, then :tcp, :udp or :icmp and :PORTS if need be, such as allow@10.0.0.5:tcp:443"

// service splits PROTO[:PORTS] from a target, which may hold colons itself.
var service = regexp.MustCompile(`^(.*?)(?::(tcp|udp|icmp|any)(?::(.*))?)?$`)

// ParseNetRule reads one rule.
func ParseNetRule(s string) (policy.Rule, error) {
	r := policy.Rule{Direction: policy.Egress}
	fail := func(what, hint string) (policy.Rule, error) {
		return policy.Rule{}, hinted(fmt.Sprintf("invalid --net-rule %q: %s", s, what), hint)
	}
	head, rest, ok := strings.Cut(s, "@")
	if !ok {
		return fail("there is no @", ruleUsage)
	}
	action, direction, directed := strings.Cut(head, ":")
	switch action {
	case "allow", "deny":
		r.Allow = action == "allow"
	default:
		return fail("it begins neither with allow nor with deny", didYouMean(action, []string{"allow", "deny"})+ruleUsage)
	}
	directions := []string{string(policy.Egress), string(policy.Ingress), string(policy.Both)}
	if directed {
		if !slices.Contains(directions, direction) {
			return fail("unknown direction", didYouMean(direction, directions)+"use egress, ingress or any")
		}
		r.Direction = policy.Direction(direction)
	}
	part := service.FindStringSubmatch(rest)
	target, protocol, ports := part[1], part[2], part[3]
	var err error
	if r.Target, err = parseTarget(target); err != nil {
		return fail(err.Error(), targetHint(target))
	}
	if protocol != "any" {
		r.Protocol = policy.Protocol(protocol)
	}
	if ports != "" || strings.HasSuffix(rest, ":") {
		if r.Ports, err = parsePorts(ports); err != nil {
			return fail(err.Error(), "write one port, a range such as 8000-8099, or several with commas")
		}
	}
	switch {
	case r.Ports != nil && r.Protocol == policy.ICMP:
		return fail("icmp has no ports", "leave them out")
	case r.Target.Group == policy.GroupDNS && protocol != "":
		return fail("dns is the resolver as a whole", "leave out what follows it")
	case r.Target.Group == policy.GroupMulticast && r.Allow:
		return fail("multicast never leaves the sandbox", "name the address of the one that is to answer")
	}
	return r, nil
}

// parseTarget reads a group, an address, a prefix, a name or *.SUFFIX.
func parseTarget(s string) (policy.Target, error) {
	if slices.Contains(policy.Groups(), policy.Group(s)) {
		return policy.Target{Group: policy.Group(s)}, nil
	}
	text := strings.NewReplacer("[", "", "]", "").Replace(s)
	if addr, err := netip.ParseAddr(text); err == nil {
		if addr.Zone() != "" {
			return policy.Target{}, fmt.Errorf("an address of a link cannot be reached")
		}
		addr = addr.Unmap()
		return policy.Target{Prefix: netip.PrefixFrom(addr, addr.BitLen())}, nil
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		if p.Addr().Is4In6() {
			return policy.Target{}, fmt.Errorf("a mapped prefix")
		}
		if p != p.Masked() {
			return policy.Target{}, fmt.Errorf("the prefix has bits set behind its length; %s is meant", p.Masked())
		}
		return policy.Target{Prefix: p}, nil
	}
	if s == "*" {
		return policy.Target{}, fmt.Errorf("* is no target")
	}
	p, err := hostname.ParseShared(s)
	if err != nil || !p.Wildcard() && !strings.Contains(string(p.Base()), ".") {
		return policy.Target{}, fmt.Errorf("the target is neither a group, an address, a prefix nor a name")
	}
	return policy.Target{Name: p}, nil
}

func targetHint(s string) string {
	var words []string
	for _, g := range policy.Groups() {
		words = append(words, string(g))
	}
	if near := didYouMean(s, words); near != "" {
		return near + "The groups are " + strings.Join(words, ", ")
	}
	if s == "*" {
		return "use any"
	}
	if head, tail, ok := strings.Cut(s, ":"); ok && strings.Count(s, ":") < 3 {
		if _, err := parseTarget(head); err == nil {
			word, _, _ := strings.Cut(tail, ":")
			if near := didYouMean(word, []string{"tcp", "udp", "icmp", "any"}); near != "" {
				return near
			}
			return fmt.Sprintf("write the protocol before the port, such as %s:tcp:%s", head, tail)
		}
	}
	return "the groups are " + strings.Join(words, ", ")
}

func parsePorts(s string) ([]policy.Ports, error) {
	var out []policy.Ports
	for item := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(item, "-")
		if !isRange {
			last = first
		}
		a, err := hostname.ParsePort(first)
		if err != nil {
			return nil, fmt.Errorf("%q is not a port", first)
		}
		b, err := hostname.ParsePort(last)
		if err != nil {
			return nil, fmt.Errorf("%q is not a port", last)
		}
		if a == 0 || b < a {
			return nil, fmt.Errorf("%q is not a range of ports", item)
		}
		out = append(out, policy.Ports{First: a, Last: b})
	}
	return out, nil
}

// Apply parses n into net.
func (n Network) Apply(net *keeper.Net) error {
	profile, err := n.profile()
	if err != nil {
		return err
	}
	net.Profile = profile
	ingress, flag := n.DefaultIngress, "--net-default-ingress"
	if ingress == "" {
		ingress, flag = n.Default, "--net-default"
	}
	deny, err := parseDefault(flag, ingress, false)
	if err != nil {
		return err
	}
	net.DenyIngress = deny
	return each("net-rule", n.Rules, func(text string) error {
		r, err := ParseNetRule(text)
		net.Rules = append(net.Rules, r)
		if err == nil && len(net.Rules) > maxNetRules {
			err = fmt.Errorf("more than %d network rules", maxNetRules)
		}
		return err
	})
}

// maxNetRules bounds what every connection is compared with: 65 ns for each
// rule.
const maxNetRules = 1024

// profile is what decides on the guest's own connections where no rule does.
func (n Network) profile() (policy.Profile, error) {
	egress, flag := n.DefaultEgress, "--net-default-egress"
	if egress == "" {
		egress, flag = n.Default, "--net-default"
	}
	switch {
	case n.Off && n.Profile != "" && n.Profile != string(policy.ProfileNone):
		return "", In("net", n.Profile, hinted("--no-net and --net exclude each other", "leave out one of them"))
	case (n.Off || n.Profile != "") && egress != "":
		return "", In(flag[2:], egress, hinted("--net and "+flag+" exclude each other: both say what becomes of what no rule decides", "leave out one of them"))
	case n.Off:
		return policy.ProfileNone, nil
	case egress != "":
		deny, err := parseDefault(flag, egress, true)
		if deny {
			return policy.ProfileNone, err
		}
		return policy.ProfileAll, err
	case n.Profile == "":
		return policy.ProfilePublic, nil
	}
	p, err := policy.ParseProfile(n.Profile)
	if err != nil {
		return "", In("net", n.Profile, hinted(fmt.Sprintf("unknown --net %q", n.Profile), didYouMean(n.Profile, NetProfiles())+"use public, private, host, all or none"))
	}
	return p, nil
}

func parseDefault(flag, s string, otherwise bool) (deny bool, err error) {
	switch s {
	case "allow":
		return false, nil
	case "deny":
		return true, nil
	case "":
		return otherwise, nil
	}
	return true, In(flag[2:], s, hinted(fmt.Sprintf("unknown %s %q", flag, s), didYouMean(s, []string{"allow", "deny"})+"use allow or deny"))
}

// texts lists all that the user wrote.
func (n Network) texts() []Text {
	texts := []Text{
		{Where: "--net", Text: n.Profile},
		{Where: "--net-default", Text: n.Default},
		{Where: "--net-default-egress", Text: n.DefaultEgress},
		{Where: "--net-default-ingress", Text: n.DefaultIngress},
	}
	for _, r := range n.Rules {
		texts = append(texts, Text{Where: "--net-rule", Text: r})
	}
	return texts
}

// NetProfiles lists the profiles of --net.
func NetProfiles() []string {
	var out []string
	for _, p := range policy.Profiles() {
		out = append(out, string(p))
	}
	return out
}

// NetRuleStarts lists beginnings of rules.
func NetRuleStarts() []string {
	var out []string
	for _, action := range []string{"allow", "deny"} {
		out = append(out, action+"@")
		for _, g := range policy.Groups() {
			out = append(out, action+"@"+string(g))
		}
	}
	return out
}
