package policy

import (
	"testing"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/secret"
)

func goodSecret() *secret.Secret {
	good, _ := hostname.ParsePattern("good.test")
	return &secret.Secret{
		Name: "S", Hosts: []secret.Host{{Pattern: good, Port: 443}},
		Scopes: []secret.Scope{{Method: "GET", Path: "/repos/**"}},
	}
}

func goodFacts() Facts {
	return Facts{
		ServerName: "good.test", Port: 443, Pinned: true, Direct: true, Reached: true, TLS: true, Verified: true, OneName: true,
		Authority: hostname.Authority{Host: "good.test", Port: 443}, AuthorityOK: true,
		Method: "GET", Target: "/repos/a",
	}
}

// TestGateTable enumerates every combination of established and failed
// facts and checks two things: a value may be written only if every fact
// holds, and the reason is that of the first gate that fails. Explain must
// say the same.
func TestGateTable(t *testing.T) {
	// In the order of the gates.
	facts := []struct {
		name   string
		fail   func(*Facts)
		reason Reason
	}{
		{"server name is a host", func(f *Facts) { f.ServerName = "evil.test" }, HostNotAllowed},
		{"server name present", func(f *Facts) { f.ServerName = "" }, HostNotAllowed},
		{"not for a proxy", func(f *Facts) { f.Direct = false }, Tunnelled},
		{"port is the binding's", func(f *Facts) { f.Port = 8443 }, HostNotAllowed},
		{"pinned", func(f *Facts) { f.Pinned = false }, NotPinned},
		{"TLS", func(f *Facts) { f.TLS = false }, PlainHTTP},
		{"verified", func(f *Facts) { f.Verified = false }, UpstreamUnverified},
		{"authority well-formed", func(f *Facts) { f.AuthorityOK = false }, AuthorityMismatch},
		{"no other authority before", func(f *Facts) { f.OneName = false }, AuthorityMismatch},
		{"authority is the server name", func(f *Facts) { f.Authority.Host = "other.test" }, AuthorityMismatch},
		{"authority present", func(f *Facts) { f.Authority.Host = "" }, AuthorityMismatch},
		{"authority's port is the dialled one", func(f *Facts) { f.Authority.Port = 9999 }, AuthorityMismatch},
		{"method in scope", func(f *Facts) { f.Method = "DELETE" }, OutOfScope},
		{"path in scope", func(f *Facts) { f.Target = "/admin" }, OutOfScope},
	}
	s, permitted := goodSecret(), 0
	for failed := range 1 << len(facts) {
		f, want := goodFacts(), None
		for i, fact := range facts {
			if failed&(1<<i) != 0 {
				fact.fail(&f)
				if want == None {
					want = fact.reason
				}
			}
		}
		if !f.TLS && f.Port == 443 && want != None && want != Tunnelled && f.ServerName == "good.test" {
			want = HostNotAllowed // in clear 443 is not the binding's port
		}
		got := Decide(f, s)
		if got.Substitute != (failed == 0) {
			t.Errorf("facts %+v: substitute is %t", f, got.Substitute)
		}
		if got.Reason != want {
			t.Errorf("facts %+v: got reason %q, want %q", f, got.Reason, want)
		}
		if got.Substitute {
			permitted++
		}
		agrees(t, f, s, got)
	}
	if permitted != 1 {
		t.Errorf("%d of %d combinations permit, want 1", permitted, 1<<len(facts))
	}
}

// agrees checks that Explain says what Decide says.
func agrees(t *testing.T, f Facts, s *secret.Secret, d Decision) {
	t.Helper()
	first, all := None, true
	for _, g := range Explain(f, s) {
		if !g.Pass && first == None {
			first = g.Reason
		}
		all = all && g.Pass
		if g.Pass != (g.Reason == None) {
			t.Errorf("gate %d passes: %t, for %q", g.Number, g.Pass, g.Reason)
		}
	}
	if first != d.Reason || all != d.Substitute {
		t.Errorf("facts %+v: explained as %t %q, decided as %+v", f, all, first, d)
	}
}

// TestExceptionTable enumerates every combination of the facts and rules that
// gate 3 and its exceptions depend on against their plain statement: a value
// goes out verified, or where its own exception and, for TLS, the host's
// holds for that very name and no upstream proxy is between.
func TestExceptionTable(t *testing.T) {
	names := []hostname.Name{"other.test", "good.test"}
	for bits := range 1 << 10 {
		bit := func(i int) bool { return bits>>i&1 == 1 }
		f, s := goodFacts(), goodSecret()
		f.TLS, f.Verified, f.NoVerify, f.Pinned, f.Direct, f.OneName = bit(0), bit(1), bit(2), bit(3), bit(4), bit(5)
		f.Reached = bit(9)
		plain, unverified := bit(6), bit(7)
		if !f.TLS {
			f.Port, f.Authority.Port = 80, 0
		}
		s.Plain, s.Unverified = names[:1], names[:1]
		if plain {
			s.Plain = names
		}
		if unverified {
			s.Unverified = names
		}
		if bit(8) {
			f.Method = "PUT"
		}
		want := f.Pinned && f.Direct && f.OneName && !bit(8) &&
			(f.TLS && (f.Verified || f.NoVerify && unverified && f.Reached) || !f.TLS && plain && f.Reached)
		d := Decide(f, s)
		if d.Substitute != want {
			t.Errorf("facts %+v, plain %t, unverified %t: substitute is %t", f, plain, unverified, d.Substitute)
		}
		agrees(t, f, s, d)
	}
}

// TestPorts: a binding without a port is for 443 over TLS and for 80 in
// clear; one with a port is for that port.
func TestPorts(t *testing.T) {
	for _, tt := range []struct {
		bound, dialled uint16
		tls, want      bool
	}{
		{443, 443, true, true},
		{443, 80, true, false},
		{443, 80, false, true},
		{443, 443, false, false},
		{8080, 8080, false, true},
		{8080, 80, false, false},
		{8080, 8080, true, true},
		{0, 80, false, true},
		{0, 8080, false, true},
		{0, 443, true, true},
		{443, 8080, false, false},
	} {
		f, s := goodFacts(), goodSecret()
		s.Hosts[0].Port, s.Plain = tt.bound, []hostname.Name{"good.test"}
		f.Port, f.TLS, f.Authority.Port = tt.dialled, tt.tls, tt.dialled
		if d := Decide(f, s); d.Substitute != tt.want {
			t.Errorf("bound to %d, dialled %d, TLS %t: %+v", tt.bound, tt.dialled, tt.tls, d)
		}
	}
}

// TestZeroFacts: what nobody established must not permit.
func TestZeroFacts(t *testing.T) {
	for _, hosts := range [][]secret.Host{nil, {}, {{}}, {{Port: 443}}} {
		s := &secret.Secret{Hosts: hosts, Plain: []hostname.Name{""}, Unverified: []hostname.Name{""}}
		if d := Decide(Facts{}, s); d.Substitute {
			t.Errorf("zero facts permit with hosts %v", hosts)
		}
		f := goodFacts()
		f.ServerName, f.Authority = "", hostname.Authority{}
		for _, f.TLS = range []bool{true, false} {
			if d := Decide(f, s); d.Substitute {
				t.Errorf("no server name permits with hosts %v", hosts)
			}
		}
	}
}

func TestSameAuthority(t *testing.T) {
	tests := map[string]struct {
		port uint16 // dialled
		auth hostname.Authority
		tls  bool
		want bool
	}{
		"default port":              {443, hostname.Authority{Host: "good.test"}, true, true},
		"default port, written":     {443, hostname.Authority{Host: "good.test", Port: 443}, true, true},
		"other port, written":       {8443, hostname.Authority{Host: "good.test", Port: 8443}, true, true},
		"other port, not written":   {8443, hostname.Authority{Host: "good.test"}, true, false},
		"other port than dialled":   {443, hostname.Authority{Host: "good.test", Port: 8443}, true, false},
		"plain port inside of TLS":  {443, hostname.Authority{Host: "good.test", Port: 80}, true, false},
		"plain":                     {80, hostname.Authority{Host: "good.test"}, false, true},
		"plain, other port":         {8080, hostname.Authority{Host: "good.test"}, false, false},
		"plain, other port written": {8080, hostname.Authority{Host: "good.test", Port: 8080}, false, true},
	}
	for name, tt := range tests {
		f := Facts{ServerName: "good.test", Port: tt.port, TLS: tt.tls, OneName: true, Authority: tt.auth, AuthorityOK: true}
		if got := SameAuthority(f); got != tt.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	f, s := goodFacts(), goodSecret()
	s.Scopes = nil
	if n := testing.AllocsPerRun(100, func() { Decide(f, s) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestReasonsAreComplete(t *testing.T) {
	for _, r := range Reasons() {
		if r.What() == "" || r.Hint() == "" {
			t.Errorf("%s lacks a text", r)
		}
	}
}
