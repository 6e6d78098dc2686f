package policy

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cutoutdev/cutout/internal/hostname"
)

// rule makes the rules of the tests: internal/config reads them from text.
func rule(allow bool, t Target, p Protocol, ports ...uint16) Rule {
	r := Rule{Allow: allow, Direction: Egress, Target: t, Protocol: p}
	for _, n := range ports {
		r.Ports = append(r.Ports, Ports{n, n})
	}
	return r
}

func group(g Group) Target   { return Target{Group: g} }
func prefix(s string) Target { return Target{Prefix: netip.MustParsePrefix(s)} }
func named(s string) Target {
	p, err := hostname.ParseShared(s)
	if err != nil {
		panic(err)
	}
	return Target{Name: p}
}

var ownAddrs = map[string]bool{"192.168.1.10": true, "8.8.8.8": true, "2606:4700::1": true, "fe80::10": true, "100.64.0.1": true}

func network(profile Profile, rules ...Rule) *Network {
	return &Network{
		Profile: profile, Rules: rules, Own: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15")},
		Local: func(a netip.Addr) bool { return ownAddrs[a.String()] },
	}
}

// TestProfilesReach: what each profile reaches of each kind of address.
func TestProfilesReach(t *testing.T) {
	kinds := map[string][]string{
		"public":    {"1.1.1.1", "2a00:1450::1", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1"},
		"private":   {"10.1.2.3", "172.16.0.1", "192.168.1.11", "100.64.0.2", "fd00::1", "::ffff:10.1.2.3", "64:ff9b::a01:203"},
		"host":      {"127.0.0.1", "::1", "192.168.1.10", "8.8.8.8", "2606:4700::1", "fe80::10", "100.64.0.1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:c0a8:10a::1"},
		"link":      {"169.254.1.1", "fe80::11"},
		"meta":      {"169.254.169.254", "fd00:ec2::254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "64:ff9b::a9fe:a9fe"},
		"elsewhere": {"240.0.0.1", "192.0.2.1", "2001:db8::1", "64:ff9b:1::a00:1", "64:ff9b:1::101:101", "4000::1"},
		"never":     {"0.0.0.0", "::", "224.0.0.251", "ff02::fb", "255.255.255.255", "198.18.0.1", "198.19.5.1", "::ffff:0.0.0.0", "64:ff9b::", "::ffff:198.18.0.1", "fe80::1%eth0"},
	}
	reach := map[Profile]string{
		"": "public", ProfilePublic: "public", ProfilePrivate: "public private", ProfileHost: "public host",
		ProfileAll: "public private host link meta elsewhere", ProfileNone: "",
	}
	for profile, allowed := range reach {
		for kind, list := range kinds {
			for _, s := range list {
				v := network(profile).Decide(Query{Direction: Egress, Protocol: TCP, Addr: netip.MustParseAddr(s), Port: 443})
				if want := containsWord(allowed, kind); v.Allowed != want || v.Allowed != (v.Reason == None) || v.Rule == "" {
					t.Errorf("profile %q, %s (%s): %+v", profile, s, kind, v)
				}
			}
		}
	}
}

func containsWord(s, word string) bool {
	for len(s) > 0 {
		n := 0
		for n < len(s) && s[n] != ' ' {
			n++
		}
		if s[:n] == word {
			return true
		}
		s = s[min(n+1, len(s)):]
	}
	return false
}

// TestRules: the first that matches decides, by every form of an address.
func TestRules(t *testing.T) {
	db := rule(true, prefix("10.0.0.5/32"), TCP, 5432)
	tests := map[string]struct {
		net   *Network
		addr  string
		proto Protocol
		port  uint16
		want  string // what decides, "" = denied
	}{
		"one private service":      {network("", db), "10.0.0.5", TCP, 5432, "allow@10.0.0.5:tcp:5432"},
		"mapped":                   {network("", db), "::ffff:10.0.0.5", TCP, 5432, "allow@10.0.0.5:tcp:5432"},
		"another port":             {network("", db), "10.0.0.5", TCP, 5433, ""},
		"another protocol":         {network("", db), "10.0.0.5", UDP, 5432, ""},
		"another address":          {network("", db), "10.0.0.6", TCP, 5432, ""},
		"first match wins":         {network("", rule(false, prefix("1.1.1.1/32"), ""), rule(true, group(GroupAny), "")), "1.1.1.1", TCP, 80, ""},
		"and the other way":        {network("", rule(true, prefix("1.1.1.1/32"), ""), rule(false, group(GroupAny), "")), "1.1.1.1", TCP, 80, "allow@1.1.1.1"},
		"deny inside NAT64":        {network(ProfileAll, rule(false, group(GroupMeta), "")), "64:ff9b::a9fe:a9fe", TCP, 80, ""},
		"deny inside local NAT64":  {network(ProfileAll, rule(false, group(GroupMeta), "")), "64:ff9b:1::a9fe:a9fe", TCP, 80, ""},
		"deny inside 6to4":         {network(ProfileAll, rule(false, prefix("10.0.0.0/8"), "")), "2002:a00:1::1", TCP, 80, ""},
		"deny Teredo client":       {network(ProfileAll, rule(false, prefix("10.0.0.0/8"), "")), "2001:0:808:808::f5ff:fffe", TCP, 80, ""},
		"allow one of two inside":  {network("", rule(true, prefix("10.0.0.0/8"), "")), "2001:0:a00:1::7f00:1", TCP, 80, ""},
		"v6 rule opens no v4":      {network("", rule(true, prefix("2002::/16"), "")), "2002:a9fe:a9fe::1", TCP, 80, ""},
		"machine's private":        {network(ProfilePrivate, rule(true, group(GroupPrivate), "")), "192.168.1.10", TCP, 80, ""},
		"machine's by address":     {network("", rule(true, prefix("192.168.1.10/32"), "")), "192.168.1.10", TCP, 80, "allow@192.168.1.10"},
		"loopback is the host":     {network("", rule(true, group(GroupHost), TCP, 8080)), "127.0.0.1", TCP, 8080, "allow@host:tcp:8080"},
		"loopback alone":           {network("", rule(true, group(GroupLoopback), "")), "8.8.8.8", TCP, 80, ""},
		"nobody opens 0.0.0.0":     {network("", rule(true, prefix("0.0.0.0/0"), "")), "0.0.0.0", TCP, 80, ""},
		"nobody opens the sandbox": {network("", rule(true, group(GroupAny), "")), "198.18.0.9", TCP, 80, ""},
		"ping":                     {network("", rule(false, group(GroupAny), ICMP)), "1.1.1.1", ICMP, 0, ""},
		"QUIC":                     {network(ProfileAll, rule(true, group(GroupAny), UDP)), "1.1.1.1", UDP, 443, ""},
		"QUIC by number":           {network("", rule(true, group(GroupPublic), UDP, 443)), "1.1.1.1", UDP, 443, "allow@public:udp:443"},
		"DoT":                      {network(""), "1.1.1.1", TCP, 853, ""},
		"DoT by number":            {network("", rule(true, prefix("1.1.1.1/32"), TCP, 853)), "1.1.1.1", TCP, 853, "allow@1.1.1.1:tcp:853"},
		"number for another":       {network("", rule(true, prefix("1.0.0.1/32"), TCP, 853)), "1.1.1.1", TCP, 853, ""},
		"mDNS to one":              {network(ProfileAll), "10.0.0.5", UDP, 5353, ""},
		"dns is no address":        {network(ProfileNone, rule(true, group(GroupDNS), "")), "1.1.1.1", TCP, 80, ""},
	}
	for name, tt := range tests {
		v := tt.net.Decide(Query{Direction: Egress, Protocol: tt.proto, Addr: netip.MustParseAddr(tt.addr), Port: tt.port})
		if v.Allowed != (tt.want != "") || v.Allowed && v.Rule != tt.want {
			t.Errorf("%s: %+v, want %q", name, v, tt.want)
		}
	}
}

// TestNameRules: a name opens its own connections to its own public
// addresses.
func TestNameRules(t *testing.T) {
	const good, evil = hostname.Name("good.test"), hostname.Name("evil.test")
	only := network(ProfileNone, rule(true, named("good.test"), TCP, 443))
	not := network(ProfilePublic, rule(false, named("*.evil.test"), ""), rule(false, named("evil.test"), TCP, 443))
	both := []hostname.Name{evil, good}
	for name, tt := range map[string]struct {
		net    *Network
		addr   string
		pins   []hostname.Name
		sni    hostname.Name
		spoken bool
		want   bool
	}{
		"pinned":                      {only, "1.1.1.1", []hostname.Name{good}, "", false, true},
		"not pinned":                  {only, "1.1.1.1", nil, "", false, false},
		"pinned for another":          {only, "1.1.1.1", []hostname.Name{evil}, "", false, false},
		"the right server name":       {only, "1.1.1.1", both, good, true, true},
		"another's server name":       {only, "1.1.1.1", both, evil, true, false},
		"server name without pin":     {only, "1.1.1.1", []hostname.Name{evil}, good, true, false},
		"no server name":              {only, "1.1.1.1", []hostname.Name{good}, "", true, true},
		"a private address":           {only, "10.0.0.5", []hostname.Name{good}, "", false, false},
		"this machine":                {only, "8.8.8.8", []hostname.Name{good}, good, true, false},
		"metadata":                    {only, "169.254.169.254", []hostname.Name{good}, good, true, false},
		"denied":                      {not, "1.1.1.1", []hostname.Name{evil}, "", false, false},
		"denied, shared address":      {not, "1.1.1.1", both, "", false, true},
		"denied, shared, good":        {not, "1.1.1.1", both, good, true, true},
		"denied, shared, evil":        {not, "1.1.1.1", both, evil, true, false},
		"denied, shared, silent":      {not, "1.1.1.1", both, "", true, false},
		"denied by server name alone": {not, "1.1.1.1", nil, "a.evil.test", true, false},
		"not denied":                  {not, "1.1.1.1", []hostname.Name{good}, good, true, true},
	} {
		q := Query{Direction: Egress, Protocol: TCP, Addr: netip.MustParseAddr(tt.addr), Port: 443, Names: tt.pins, ServerName: tt.sni, Spoken: tt.spoken}
		if v := tt.net.Decide(q); v.Allowed != tt.want {
			t.Errorf("%s: %+v", name, v)
		}
	}
	host := network(ProfileNone, rule(true, named(string(HostName)), TCP, 8080))
	q := Query{Direction: Egress, Protocol: TCP, Addr: netip.MustParseAddr("127.0.0.1"), Port: 8080, Names: []hostname.Name{HostName}}
	if v := host.Decide(q); !v.Allowed {
		t.Errorf("this machine by name: %+v", v)
	}
	if q.Names = nil; host.Decide(q).Allowed {
		t.Error("loopback without the name")
	}
	// A resolver's answer is no way to that name.
	if v := network(ProfilePublic, rule(true, named("*.internal"), "")).Address(netip.MustParseAddr("127.0.0.1"), "x.internal"); v.Allowed {
		t.Errorf("a name opens loopback: %+v", v)
	}
}

func TestIngress(t *testing.T) {
	in := rule(true, prefix("10.0.0.0/8"), TCP, 80)
	in.Direction = Ingress
	deny := in
	deny.Allow, deny.Ports = false, nil
	for name, tt := range map[string]struct {
		net  *Network
		addr string
		port uint16
		want bool
	}{
		"default":            {network(""), "127.0.0.1", 80, true},
		"default deny":       {&Network{DenyIngress: true}, "127.0.0.1", 80, false},
		"allowed":            {&Network{DenyIngress: true, Rules: []Rule{in}}, "10.1.1.1", 80, true},
		"another port":       {&Network{DenyIngress: true, Rules: []Rule{in}}, "10.1.1.1", 81, false},
		"another peer":       {&Network{DenyIngress: true, Rules: []Rule{in}}, "11.1.1.1", 80, false},
		"denied":             {network("", deny), "10.1.1.1", 80, false},
		"egress rule is not": {network("", rule(false, group(GroupAny), "")), "10.1.1.1", 80, true},
	} {
		if v := tt.net.Decide(Query{Direction: Ingress, Protocol: TCP, Addr: netip.MustParseAddr(tt.addr), Port: tt.port}); v.Allowed != tt.want {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if v := network(ProfileNone, in).Decide(Query{Direction: Egress, Protocol: TCP, Addr: netip.MustParseAddr("10.1.1.1"), Port: 80}); v.Allowed {
		t.Errorf("a rule for ingress lets out: %+v", v)
	}
}

// TestLookup: names that cannot be reached are not asked for.
func TestLookup(t *testing.T) {
	allowGood := rule(true, named("good.test"), TCP, 443)
	for name, tt := range map[string]struct {
		net             *Network
		name            hostname.Name
		only, mentioned bool
		want            Reason
	}{
		"public":              {network(""), "x.test", false, false, None},
		"none":                {network(ProfileNone), "x.test", false, false, NetworkOff},
		"allowed":             {network(ProfileNone, allowGood), "good.test", false, false, None},
		"not allowed":         {network(ProfileNone, allowGood), "x.good.test", false, false, NameDenied},
		"by address":          {network(ProfileNone, allowGood, rule(true, prefix("10.0.0.0/8"), "")), "x.test", false, false, None},
		"the resolver only":   {network(ProfileNone, allowGood, rule(true, group(GroupDNS), "")), "x.test", false, false, NameDenied},
		"denied":              {network("", rule(false, named("*.evil.test"), "")), "a.evil.test", false, false, RuleDenied},
		"denied for a port":   {network("", rule(false, named("evil.test"), TCP, 22)), "evil.test", false, false, None},
		"no resolver":         {network("", rule(false, group(GroupDNS), "")), "x.test", false, false, RuleDenied},
		"any is not dns":      {network("", allowGood, rule(false, group(GroupAny), "")), "good.test", false, false, None},
		"only, unknown":       {network(""), "x.test", true, false, NameDenied},
		"only, of a secret":   {network(""), "x.test", true, true, None},
		"only, of a rule":     {network("", allowGood), "good.test", true, false, None},
		"no host name at all": {network(ProfileNone, allowGood), "", false, false, NameDenied},
	} {
		if v := tt.net.Lookup(tt.name, tt.only, tt.mentioned); v.Reason != tt.want || v.Allowed != (tt.want == None) {
			t.Errorf("%s: %+v, want %q", name, v, tt.want)
		}
	}
}

// TestAddressAnswers: an answer is given if some service at the address could
// be reached.
func TestAddressAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		net  *Network
		addr string
		want bool
	}{
		"public":                 {network(""), "1.1.1.1", true},
		"private":                {network(""), "10.0.0.5", false},
		"by an address rule":     {network("", rule(true, prefix("10.0.0.5/32"), TCP, 443)), "10.0.0.5", true},
		"not by a name's":        {network("", rule(true, named("good.test"), "")), "10.0.0.5", false},
		"denied":                 {network("", rule(false, prefix("1.1.1.0/24"), "")), "1.1.1.1", false},
		"denied for one service": {network("", rule(false, prefix("1.1.1.0/24"), TCP, 25)), "1.1.1.1", true},
		"under another name":     {network(ProfileNone, rule(true, named("evil.test"), "")), "1.1.1.1", false},
	} {
		if v := tt.net.Address(netip.MustParseAddr(tt.addr), "good.test"); v.Allowed != tt.want {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// TestRuleJSON: rules reach the keeper as they were read.
func TestRuleJSON(t *testing.T) {
	for _, r := range []Rule{
		rule(true, group(GroupHost), ""), rule(false, prefix("10.0.0.0/8"), TCP, 1, 2),
		rule(true, named("*.example.com"), UDP), rule(true, prefix("2001:db8::/32"), ICMP),
	} {
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var got Rule
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if d := cmp.Diff(r, got, cmpopts.EquateComparable(netip.Prefix{}, hostname.Pattern{})); d != "" {
			t.Errorf("%s: %s", b, d)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	var rules []Rule
	for range 100 {
		rules = append(rules, rule(true, prefix("10.0.0.5/32"), TCP, 443), rule(true, named("good.test"), TCP))
	}
	n := network("", rules...)
	q := Query{Direction: Egress, Protocol: TCP, Addr: netip.MustParseAddr("1.1.1.1"), Port: 443, Names: []hostname.Name{"evil.test"}}
	for b.Loop() {
		n.Decide(q)
	}
}
