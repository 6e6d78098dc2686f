package dns

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
)

// TestUnknown: only a name of which no resolver knows anything is given an
// address of its own. One whose addresses are denied is not, nor one that is
// known for the other family or that answers with nothing; else whoever owns a
// name could have it judged as unknown.
func TestUnknown(t *testing.T) {
	stand4, stand6 := netip.MustParseAddr("198.18.128.0"), netip.MustParseAddr("fd00::4:0")
	nxdomain := func(q, reply *dns.Msg) { reply.Rcode = dns.RcodeNameError }
	servfail := func(q, reply *dns.Msg) { reply.Rcode = dns.RcodeServerFailure }
	private := func(kind uint16, rest func(q, reply *dns.Msg)) func(q, reply *dns.Msg) {
		return func(q, reply *dns.Msg) {
			if q.Question[0].Qtype != kind {
				rest(q, reply)
				return
			}
			text := q.Question[0].Name + " 30 IN A 10.0.0.5"
			if kind == dns.TypeAAAA {
				text = q.Question[0].Name + " 30 IN AAAA fd00::5"
			}
			rr, err := dns.NewRR(text)
			if err != nil {
				t.Error(err)
			}
			reply.Answer = append(reply.Answer, rr)
		}
	}
	for name, tt := range map[string]struct {
		answer func(q, reply *dns.Msg)
		stands bool
	}{
		"no such name":             {nxdomain, true},
		"resolvers that fail":      {servfail, true},
		"no data":                  {func(q, reply *dns.Msg) {}, false},
		"denied, else no name":     {private(dns.TypeA, nxdomain), false},
		"denied, else a failure":   {private(dns.TypeA, servfail), false},
		"denied IPv6, else none":   {private(dns.TypeAAAA, nxdomain), false},
		"denied IPv6, else failed": {private(dns.TypeAAAA, servfail), false},
	} {
		r := serve(t, func(_ dns.ResponseWriter, q, reply *dns.Msg) { tt.answer(q, reply) })
		i, _ := interceptor(r)
		given := 0
		i.Unknown = func(n hostname.Name) ([]netip.Addr, bool) {
			given++
			return []netip.Addr{stand4, stand6}, true
		}
		for kind, want := range map[uint16]string{dns.TypeA: stand4.String(), dns.TypeAAAA: stand6.String(), dns.TypeTXT: ""} {
			m := ask(t, i, question("good.test.", kind), false)
			got := ""
			for _, rr := range m.Answer {
				switch rr := rr.(type) {
				case *dns.A:
					got = rr.A.String()
				case *dns.AAAA:
					got = rr.AAAA.String()
				}
			}
			if tt.stands && (got != want || m.Rcode != dns.RcodeSuccess) || !tt.stands && got != "" {
				t.Errorf("%s: %s is %q, %s", name, dns.TypeToString[kind], got, dns.RcodeToString[m.Rcode])
			}
		}
		if (given > 0) != tt.stands || i.Pins.Pinned("good.test", stand4) != tt.stands {
			t.Errorf("%s: given %d times, pinned %t", name, given, i.Pins.Pinned("good.test", stand4))
		}
	}
}

// TestUnknownLimit: where there are no more addresses the guest is told to ask
// again, and the log why. Names that may not be asked for get none.
func TestUnknownLimit(t *testing.T) {
	r := serve(t, func(_ dns.ResponseWriter, _, reply *dns.Msg) { reply.Rcode = dns.RcodeNameError })
	i, log := interceptor(r)
	i.Unknown = func(hostname.Name) ([]netip.Addr, bool) { return nil, false }
	if m := ask(t, i, question("good.test.", dns.TypeA), false); m.Rcode != dns.RcodeServerFailure {
		t.Error(m)
	}
	if got := log.reasons(); len(got) != 1 || got[0] != policy.LimitReached {
		t.Error(got)
	}
	i, _ = interceptor(r)
	i.OnlyAllowed = true
	i.Unknown = func(hostname.Name) ([]netip.Addr, bool) { t.Error("asked for"); return nil, false }
	for _, name := range []string{"other.test.", "printer.local.", "localhost."} {
		if m := ask(t, i, question(name, dns.TypeA), false); m.Rcode != dns.RcodeNameError {
			t.Error(m)
		}
	}
}
