package dns

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/cutoutdev/cutout/internal/audit"
)

// TestLackingFamily: addresses to which there is no way are left out and not
// pinned; nothing is denied, and addresses of the same name that can be
// reached stay.
func TestLackingFamily(t *testing.T) {
	r := serve(t, zone(t, map[string][]string{
		"six.test.":   {"six.test. 30 IN CNAME cdn.test.", "cdn.test. 30 IN AAAA 2606:4700::1"},
		"mixed.test.": {"mixed.test. 30 IN AAAA 2606:4700::1", "mixed.test. 30 IN AAAA 2606:4700::2"},
	}))
	i, log := interceptor(r)
	i.Lacks = func(a netip.Addr) bool { return a != netip.MustParseAddr("2606:4700::2") }
	for name, want := range map[string][]string{
		"six.test.":   {"six.test. CNAME cdn.test."},
		"mixed.test.": {"mixed.test. AAAA 2606:4700::2"},
	} {
		m := ask(t, i, question(name, dns.TypeAAAA), false)
		if m.Rcode != dns.RcodeSuccess {
			t.Errorf("%s: rcode %v", name, dns.RcodeToString[m.Rcode])
		}
		if diff := cmp.Diff(want, answers(m)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if i.Pins.Pinned("mixed.test", netip.MustParseAddr("2606:4700::1")) || !i.Pins.Pinned("mixed.test", netip.MustParseAddr("2606:4700::2")) {
		t.Error("the pins are not those of the answers")
	}
	for _, e := range log.list {
		if e.Event == audit.Denied {
			t.Errorf("denied: %+v", e)
		}
	}
}
