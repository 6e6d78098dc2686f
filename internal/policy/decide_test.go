package policy

import (
	"testing"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/secret"
)

// TestGateTable enumerates every combination of established and failed
// facts and checks two things: a value may be written only if every fact
// holds, and the reason is that of the first gate that fails.
func TestGateTable(t *testing.T) {
	good, _ := hostname.ParsePattern("good.test")
	hosts := []secret.Host{{Pattern: good, Port: 443}}
	holds := Facts{
		ServerName: "good.test", Port: 443, Pinned: true, TLS: true, Verified: true,
		Authority: hostname.Authority{Host: "good.test", Port: 443}, AuthorityOK: true,
	}
	// In the order of the gates.
	facts := []struct {
		name   string
		fail   func(*Facts)
		reason Reason
	}{
		{"TLS", func(f *Facts) { f.TLS = false }, PlainHTTP},
		{"server name is a host", func(f *Facts) { f.ServerName = "evil.test" }, HostNotAllowed},
		{"server name present", func(f *Facts) { f.ServerName = "" }, HostNotAllowed},
		{"port is the binding's", func(f *Facts) { f.Port = 8443 }, HostNotAllowed},
		{"pinned", func(f *Facts) { f.Pinned = false }, NotPinned},
		{"verified", func(f *Facts) { f.Verified = false }, UpstreamUnverified},
		{"authority well-formed", func(f *Facts) { f.AuthorityOK = false }, AuthorityMismatch},
		{"authority is the server name", func(f *Facts) { f.Authority.Host = "other.test" }, AuthorityMismatch},
		{"authority present", func(f *Facts) { f.Authority.Host = "" }, AuthorityMismatch},
		{"authority's port is the dialled one", func(f *Facts) { f.Authority.Port = 9999 }, AuthorityMismatch},
	}
	permitted := 0
	for failed := range 1 << len(facts) {
		f, want := holds, None
		for i, fact := range facts {
			if failed&(1<<i) != 0 {
				fact.fail(&f)
				if want == None {
					want = fact.reason
				}
			}
		}
		got := Decide(f, hosts)
		if got.Substitute != (failed == 0) {
			t.Errorf("facts %+v: substitute is %t", f, got.Substitute)
		}
		if got.Reason != want {
			t.Errorf("facts %+v: got reason %q, want %q", f, got.Reason, want)
		}
		if got.Substitute {
			permitted++
		}
	}
	if permitted != 1 {
		t.Errorf("%d of %d combinations permit, want 1", permitted, 1<<len(facts))
	}
}

// TestZeroFacts: what nobody established must not permit.
func TestZeroFacts(t *testing.T) {
	for _, hosts := range [][]secret.Host{nil, {}, {{}}, {{Port: 443}}} {
		if d := Decide(Facts{}, hosts); d.Substitute {
			t.Errorf("zero facts permit with hosts %v", hosts)
		}
		f := Facts{Port: 443, Pinned: true, TLS: true, Verified: true, AuthorityOK: true}
		if d := Decide(f, hosts); d.Substitute {
			t.Errorf("no server name permits with hosts %v", hosts)
		}
	}
}

func TestSameAuthority(t *testing.T) {
	tests := map[string]struct {
		port uint16 // dialled
		auth hostname.Authority
		want bool
	}{
		"default port":             {443, hostname.Authority{Host: "good.test"}, true},
		"default port, written":    {443, hostname.Authority{Host: "good.test", Port: 443}, true},
		"other port, written":      {8443, hostname.Authority{Host: "good.test", Port: 8443}, true},
		"other port, not written":  {8443, hostname.Authority{Host: "good.test"}, false},
		"other port than dialled":  {443, hostname.Authority{Host: "good.test", Port: 8443}, false},
		"plain port inside of TLS": {443, hostname.Authority{Host: "good.test", Port: 80}, false},
	}
	for name, tt := range tests {
		f := Facts{ServerName: "good.test", Port: tt.port, Authority: tt.auth, AuthorityOK: true}
		if got := SameAuthority(f); got != tt.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
}

func TestReasonsAreComplete(t *testing.T) {
	for _, r := range Reasons() {
		if r.What() == "" || r.Hint() == "" {
			t.Errorf("%s lacks a text", r)
		}
	}
}
