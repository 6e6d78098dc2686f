package keeper

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/egress"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/ingress"
	"github.com/cutoutdev/cutout/internal/otlp"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// TestWarnings: everything that weakens a promise is said, and nothing else.
func TestWarnings(t *testing.T) {
	shared, err := hostname.ParseShared("*.github.io")
	if err != nil {
		t.Fatal(err)
	}
	own, err := hostname.ParsePattern("*.good.example")
	if err != nil {
		t.Fatal(err)
	}
	rules := func(t policy.Target) func(*Spec, *secret.Secret) {
		return func(s *Spec, _ *secret.Secret) {
			s.Net.Rules = []policy.Rule{{Allow: true, Direction: policy.Egress, Target: t}}
		}
	}
	with := func(change func(*Spec, *secret.Secret)) Spec {
		s := Spec{Secrets: []secret.Secret{{Name: "KEY", Hosts: []secret.Host{{Pattern: hostname.Exact("good.example"), Port: 443}}}}}
		change(&s, &s.Secrets[0])
		return s
	}
	published := func(at string) func(*Spec, *secret.Secret) {
		return func(s *Spec, _ *secret.Secret) {
			s.Net.Published = []ingress.Port{{Protocol: policy.TCP, Listen: netip.MustParseAddrPort(at), Guest: 8080}}
		}
	}
	tests := map[string]struct {
		spec Spec
		want string // "" = no warning
	}{
		"nothing": {with(func(*Spec, *secret.Secret) {}), ""},
		"plain":   {with(func(_ *Spec, x *secret.Secret) { x.Plain = []hostname.Name{"good.example"} }), "KEY may go to good.example unencrypted"},
		"unverified": {with(func(s *Spec, x *secret.Secret) {
			x.Unverified = []hostname.Name{"good.example"}
			s.TLS.NoVerify = x.Unverified
		}), "KEY may go to good.example without proof"},
		"plain, proxied": {with(func(s *Spec, x *secret.Secret) {
			x.Plain, s.Net.Egress = []hostname.Name{"good.example"}, &egress.Spec{Scheme: egress.HTTPS}
		}), "unencrypted, where that is reached without the upstream proxy"},
		"collector": {
			with(func(s *Spec, _ *secret.Secret) {
				s.OTLP = &otlp.Spec{URL: "http://otel.example/v1/logs", Headers: true}
			}),
			"the events and the credential go to the collector unencrypted",
		},
		"collector, TLS":  {with(func(s *Spec, _ *secret.Secret) { s.OTLP = &otlp.Spec{URL: "https://otel.example/v1/logs"} }), ""},
		"collector, here": {with(func(s *Spec, _ *secret.Secret) { s.OTLP = &otlp.Spec{URL: "http://[::1]:4318/v1/logs"} }), ""},
		"metrics":         {with(func(s *Spec, _ *secret.Secret) { s.Metrics = "192.0.2.1:9464" }), "other machines may read at 192.0.2.1:9464"},
		"metrics, here":   {with(func(s *Spec, _ *secret.Secret) { s.Metrics = "127.0.0.1:9464" }), ""},
		"metrics, socket": {with(func(s *Spec, _ *secret.Secret) { s.Metrics = "unix:/run/m.sock" }), ""},
		"proxy": {with(func(s *Spec, _ *secret.Secret) {
			s.Net.Egress = &egress.Spec{Scheme: egress.HTTP, Host: "proxy.example"}
		}), ""},
		"proxy, login": {with(func(s *Spec, _ *secret.Secret) {
			s.Net.Egress = &egress.Spec{Scheme: egress.SOCKS, Host: "proxy.example", Login: true}
		}), "the upstream proxy goes to it unencrypted"},
		"proxy, here": {with(func(s *Spec, _ *secret.Secret) {
			s.Net.Egress = &egress.Spec{Scheme: egress.HTTP, Host: "127.0.0.1", Login: true}
		}), ""},
		"proxy, TLS": {with(func(s *Spec, _ *secret.Secret) {
			s.Net.Egress = &egress.Spec{Scheme: egress.HTTPS, Host: "proxy.example", Login: true}
		}), ""},
		"proxy, names":      {with(func(s *Spec, _ *secret.Secret) { s.Net.Egress = &egress.Spec{Scheme: egress.HTTP, Names: true} }), "where the upstream proxy says"},
		"no verify":         {with(func(s *Spec, _ *secret.Secret) { s.TLS.NoVerify = []hostname.Name{"good.example"} }), "certificate of good.example is not verified"},
		"short":             {with(func(_ *Spec, x *secret.Secret) { x.Short = true }), "shorter than 8 bytes"},
		"any":               {with(func(_ *Spec, x *secret.Secret) { x.Hosts[0].Pattern = hostname.Any() }), "every server"},
		"shared":            {with(func(_ *Spec, x *secret.Secret) { x.Hosts[0].Pattern = shared }), "below github.io, whoever owns it"},
		"without apex":      {with(func(_ *Spec, x *secret.Secret) { x.Hosts[0].Pattern = own }), "not to good.example itself"},
		"with apex":         {with(func(_ *Spec, x *secret.Secret) { x.Hosts = append(x.Hosts, secret.Host{Pattern: own}) }), ""},
		"not opened":        {with(func(s *Spec, _ *secret.Secret) { s.TLS.Intercept = "off" }), "no TLS connection is opened"},
		"scrub off":         {with(func(s *Spec, _ *secret.Secret) { s.Scrub = []ScrubRule{{Mode: "off"}} }), "the hosts of secrets answer is not searched"},
		"scrub lax":         {with(func(s *Spec, _ *secret.Secret) { s.Scrub = []ScrubRule{{Hosts: &own, Mode: "lax"}} }), "what *.good.example answers reaches the guest"},
		"private":           {with(func(s *Spec, _ *secret.Secret) { s.Net.Profile = policy.ProfilePrivate }), "every private network"},
		"host":              {with(func(s *Spec, _ *secret.Secret) { s.Net.Profile = policy.ProfileHost }), "every port of this machine"},
		"all":               {with(func(s *Spec, _ *secret.Secret) { s.Net.Profile = policy.ProfileAll }), "whatever this machine can"},
		"rule host":         {with(rules(policy.Target{Group: policy.GroupHost})), "not public: allow@host"},
		"rule name":         {with(rules(policy.Target{Name: hostname.Exact(policy.HostName)})), "not public: allow@host.cutout.internal"},
		"rule prefix":       {with(rules(policy.Target{Prefix: netip.MustParsePrefix("10.0.0.5/32")})), "not public: allow@10.0.0.5"},
		"rule all":          {with(rules(policy.Target{Prefix: netip.MustParsePrefix("::/0")})), "not public: allow@[::/0]"},
		"published":         {with(published("127.0.0.1:80")), ""},
		"published, IPv6":   {with(published("[::1]:80")), ""},
		"published outside": {with(published("0.0.0.0:80")), "other machines may come to the published port 0.0.0.0:80:8080/tcp"},
		"published in vain": {with(func(s *Spec, x *secret.Secret) {
			published("127.0.0.1:80")(s, x)
			s.Net.DenyIngress = true
			s.Net.Rules = []policy.Rule{{Allow: true, Direction: policy.Egress, Target: policy.Target{Name: hostname.Exact("other.example")}}}
		}), "nobody can come to the published port"},
		"rule public": {with(rules(policy.Target{Prefix: netip.MustParsePrefix("2606:4700::/32")})), ""},
		"rule other":  {with(rules(policy.Target{Name: hostname.Exact("other.example")})), ""},
		"unreachable": {with(func(s *Spec, x *secret.Secret) {
			rules(policy.Target{Name: hostname.Exact("other.example")})(s, x)
			s.Net.Profile = policy.ProfileNone
		}), "KEY can go nowhere at good.example"},
		"DoT": {with(func(s *Spec, _ *secret.Secret) {
			s.Net.Rules = []policy.Rule{{Allow: true, Direction: policy.Egress, Target: policy.Target{Group: policy.GroupPublic}, Protocol: policy.TCP, Ports: []policy.Ports{{First: 853, Last: 853}}}}
		}), "ask resolvers in private"},
		"scrub on": {with(func(s *Spec, _ *secret.Secret) { s.Scrub = []ScrubRule{{Mode: "on"}, {Mode: "all"}} }), ""},
	}
	for name, tt := range tests {
		got := strings.Join(tt.spec.Warnings(), "\n")
		if tt.want == "" && got != "" || !strings.Contains(got, tt.want) || strings.Contains(got, "\n") {
			t.Errorf("%s: got %q", name, got)
		}
	}
}
