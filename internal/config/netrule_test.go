package config

import (
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/policy"
)

// TestParseNetRule: what is read is written back in one way.
func TestParseNetRule(t *testing.T) {
	for in, want := range map[string]string{
		"allow@public":                        "",
		"deny@any":                            "",
		"deny@dns":                            "",
		"allow:ingress@10.0.0.0/8:tcp:80":     "",
		"deny:any@meta":                       "",
		"allow:egress@1.2.3.4":                "allow@1.2.3.4",
		"allow@10.0.0.5:tcp:443":              "",
		"allow@10.0.0.5:tcp:443,8000-8099":    "",
		"allow@10.0.0.5:any:53":               "",
		"allow@10.0.0.5:any":                  "allow@10.0.0.5",
		"allow@10.0.0.5:icmp":                 "",
		"allow@::ffff:10.0.0.5":               "allow@10.0.0.5",
		"allow@2001:db8::1":                   "allow@[2001:db8::1]",
		"allow@2001:db8::1:udp:53":            "allow@[2001:db8::1]:udp:53",
		"allow@[2001:db8::1]:tcp:443":         "",
		"allow@[2001:db8::/32]:tcp":           "",
		"allow@[2001:db8::]/32:tcp":           "allow@[2001:db8::/32]:tcp",
		"allow@API.Example.com.:tcp:443":      "allow@api.example.com:tcp:443",
		"deny@*.example.com":                  "",
		"deny@*.com":                          "",
		"allow@host.cutout.internal:tcp:8080": "",
	} {
		if want == "" {
			want = in
		}
		r, err := ParseNetRule(in)
		if err != nil || r.String() != want {
			t.Errorf("%s: %s, %v; want %s", in, r, err, want)
		}
	}
}

func TestParseNetRuleRefused(t *testing.T) {
	for in, hint := range map[string]string{
		"public":                    "write allow@TARGET",
		"alow@public":               "did you mean allow?",
		"allow:egres@public":        "did you mean egress?",
		"allow@pubic":               "did you mean public?",
		"allow@linklocal":           "did you mean link-local?",
		"allow@10.0.0.5:443":        "10.0.0.5:tcp:443",
		"allow@10.0.0.5:tpc:443":    "did you mean tcp?",
		"allow@example.com:443":     "example.com:tcp:443",
		"allow@10.0.0.5:tcp:":       "write one port",
		"allow@10.0.0.5:tcp:0":      "write one port",
		"allow@10.0.0.5:tcp:70000":  "write one port",
		"allow@10.0.0.5:tcp:9-8":    "write one port",
		"allow@10.0.0.5:icmp:1":     "leave them out",
		"allow@10.0.0.1/8":          "",
		"allow@::ffff:10.0.0.0/104": "",
		"allow@fe80::1%eth0":        "",
		"allow@*":                   "use any",
		"allow@exa mple.com":        "the groups are",
		"allow@*.*.com":             "the groups are",
		"allow@":                    "the groups are",
		"allow@dns:tcp":             "leave out",
		"allow@multicast":           "name the address",
		"deny:sideways@any":         "use egress",
	} {
		r, err := ParseNetRule(in)
		if err == nil {
			t.Errorf("%s passes as %s", in, r)
		} else if !strings.Contains(Hint(err), hint) {
			t.Errorf("%s: %v, hint %q; want %q", in, err, Hint(err), hint)
		}
	}
}

func TestNetworkApply(t *testing.T) {
	for name, tt := range map[string]struct {
		in   Network
		want policy.Profile // "" = refused
		deny bool           // ingress
	}{
		"nothing":       {Network{}, policy.ProfilePublic, false},
		"profile":       {Network{Profile: "host"}, policy.ProfileHost, false},
		"off":           {Network{Off: true}, policy.ProfileNone, false},
		"off twice":     {Network{Off: true, Profile: "none"}, policy.ProfileNone, false},
		"off and on":    {Network{Off: true, Profile: "public"}, "", false},
		"misspelt":      {Network{Profile: "pubic"}, "", false},
		"default deny":  {Network{Default: "deny"}, policy.ProfileNone, true},
		"default allow": {Network{Default: "allow"}, policy.ProfileAll, false},
		"egress wins":   {Network{Default: "allow", DefaultEgress: "deny"}, policy.ProfileNone, false},
		"ingress":       {Network{Profile: "public", DefaultIngress: "deny"}, policy.ProfilePublic, true},
		"both":          {Network{Profile: "public", DefaultEgress: "deny"}, "", false},
		"wrong":         {Network{Default: "denied"}, "", false},
		"wrong ingress": {Network{DefaultIngress: "no"}, "", false},
		"wrong rule":    {Network{Rules: []string{"x"}}, "", false},
	} {
		var net keeper.Net
		err := tt.in.Apply(&net)
		if (err != nil) != (tt.want == "") || err == nil && (net.Profile != tt.want || net.DenyIngress != tt.deny) {
			t.Errorf("%s: %+v, %v", name, net, err)
		}
	}
}
