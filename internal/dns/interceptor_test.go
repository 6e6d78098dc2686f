package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
)

func TestAnswerPins(t *testing.T) {
	r := serve(t, zone(t, map[string][]string{
		"good.test.":   {"good.test. 30 IN A 8.8.8.8", "good.test. 30 IN A 8.8.4.4"},
		"six.test.":    {"six.test. 30 IN AAAA 2606:4700::1"},
		"alias.test.":  {"alias.test. 30 IN CNAME mid.test.", "mid.test. 30 IN CNAME cdn.example.", "cdn.example. 30 IN A 9.9.9.9"},
		"extra.test.":  {"extra.test. 30 IN A 9.9.9.1", "good.test. 30 IN A 6.6.6.6", "evil.test. 30 IN A 6.6.6.6"},
		"broken.test.": {"broken.test. 30 IN CNAME a.test.", "b.test. 30 IN A 9.9.9.9"},
		"loop.test.":   {"loop.test. 30 IN CNAME loop2.test.", "loop2.test. 30 IN CNAME loop.test."},
	}))
	tests := []struct {
		name   string
		kind   uint16
		want   []string
		pinned []string // of the name asked for
	}{
		{"GOOD.test.", dns.TypeA, []string{"GOOD.test. A 8.8.8.8", "GOOD.test. A 8.8.4.4"}, []string{"8.8.8.8", "8.8.4.4"}},
		{"six.test.", dns.TypeAAAA, []string{"six.test. AAAA 2606:4700::1"}, []string{"2606:4700::1"}},
		{"good.test.", dns.TypeAAAA, []string{}, nil},
		{"alias.test.", dns.TypeA, []string{"alias.test. CNAME mid.test.", "mid.test. CNAME cdn.example.", "cdn.example. A 9.9.9.9"}, []string{"9.9.9.9"}},
		{"extra.test.", dns.TypeA, []string{"extra.test. A 9.9.9.1"}, []string{"9.9.9.1"}},
		{"broken.test.", dns.TypeA, []string{"broken.test. CNAME a.test."}, nil},
		{"loop.test.", dns.TypeA, nil, nil},
	}
	for _, test := range tests {
		t.Run(test.name+dns.TypeToString[test.kind], func(t *testing.T) {
			i, _ := interceptor(r)
			q := question(test.name, test.kind)
			m := ask(t, i, q, false)
			if m.Rcode != dns.RcodeSuccess {
				t.Fatalf("rcode %v", dns.RcodeToString[m.Rcode])
			}
			if m.Question[0] != q.Question[0] {
				t.Errorf("question %v came back as %v", q.Question[0], m.Question[0])
			}
			if diff := cmp.Diff(test.want, answers(m)); test.want != nil && diff != "" {
				t.Error(diff)
			}
			name, _ := hostname.Parse(test.name)
			for _, a := range test.pinned {
				if !i.Pins.Pinned(name, netip.MustParseAddr(a)) {
					t.Errorf("%s is not pinned", a)
				}
			}
			// A7: neither the alias's names nor records beside the chain.
			if i.Pins.Len() != len(test.pinned) {
				t.Errorf("%d pins, want %d", i.Pins.Len(), len(test.pinned))
			}
		})
	}
}

// A5: answers that lead to the host or its network.
func TestAnswerDenied(t *testing.T) {
	denied := []string{
		"A 127.0.0.1", "A 169.254.169.254", "A 10.0.0.1", "A 0.0.0.0", "A 192.168.1.1", "A 100.64.0.1", "A 7.7.7.7",
		"AAAA fd00::1", "AAAA ::1", "AAAA ::", "AAAA ::ffff:127.0.0.1", "AAAA 64:ff9b::7f00:1", "AAAA 2002:7f00:1::",
		"AAAA 2001:0:808:808::80ff:fffe", "AAAA fe80::1",
	}
	for _, d := range denied {
		t.Run(d, func(t *testing.T) {
			kind := dns.StringToType[strings.Fields(d)[0]]
			r := serve(t, zone(t, map[string][]string{"good.test.": {"good.test. 30 IN " + d}}))
			i, log := interceptor(r)
			i.Network.Local = func(a netip.Addr) bool { return a == netip.MustParseAddr("7.7.7.7") }
			m := ask(t, i, question("good.test.", kind), false)
			if m.Rcode != dns.RcodeNameError || len(m.Answer) != 0 {
				t.Errorf("%v %v", dns.RcodeToString[m.Rcode], m.Answer)
			}
			if i.Pins.Len() != 0 {
				t.Error("a denied address was pinned")
			}
			if !slices.Contains(log.reasons(), policy.AddressDenied) {
				t.Error("nothing was told")
			}
		})
	}
	t.Run("one of two", func(t *testing.T) {
		r := serve(t, zone(t, map[string][]string{"good.test.": {"good.test. 30 IN A 127.0.0.1", "good.test. 30 IN A 8.8.8.8"}}))
		i, _ := interceptor(r)
		m := ask(t, i, question("good.test.", dns.TypeA), false)
		if diff := cmp.Diff([]string{"good.test. A 8.8.8.8"}, answers(m)); diff != "" {
			t.Error(diff)
		}
	})
}

// A9.
func TestServiceRecords(t *testing.T) {
	tests := map[string]struct{ record, want string }{
		"ech, h3 and hints": {
			`1 . alpn="h3,h2" ipv4hint="6.6.6.6" ech="AEX+DQBB" ipv6hint="2606::6"`, `1 . alpn="h2"`,
		},
		"only h3":                 {`1 . alpn="h3"`, `1 .`},
		"drafts of h3":            {`1 . alpn="h3-29,http/1.1"`, `1 . alpn="http/1.1"`},
		"only h3, nothing else":   {`1 . alpn="h3" no-default-alpn`, ``},
		"ech is mandatory":        {`1 . mandatory="ech" ech="AEX+DQBB"`, ``},
		"alpn is mandatory":       {`1 . mandatory="alpn" alpn="h2"`, `1 . mandatory="alpn" alpn="h2"`},
		"alias":                   {`0 other.test.`, ``},
		"service at another name": {`1 other.test. alpn="h2"`, ``},
		"port stays":              {`1 . alpn="h2" port="8443"`, `1 . alpn="h2" port="8443"`},
	}
	for name, test := range tests {
		for _, kind := range []string{"HTTPS", "SVCB"} {
			t.Run(name+" "+kind, func(t *testing.T) {
				r := serve(t, zone(t, map[string][]string{"good.test.": {"good.test. 30 IN " + kind + " " + test.record}}))
				i, _ := interceptor(r)
				m := ask(t, i, question("good.test.", dns.StringToType[kind]), false)
				want := []string{}
				if test.want != "" {
					want = append(want, "good.test. "+kind+" "+test.want)
				}
				if diff := cmp.Diff(want, answers(m)); diff != "" || m.Rcode != 0 {
					t.Errorf("%v %s", dns.RcodeToString[m.Rcode], diff)
				}
				if i.Pins.Len() != 0 {
					t.Error("a hint was pinned")
				}
			})
		}
	}
}

func TestAdditionalSectionIsDropped(t *testing.T) {
	r := serve(t, func(_ dns.ResponseWriter, q, reply *dns.Msg) {
		reply.Answer = []dns.RR{rr(t, "good.test. 30 IN MX 1 mx.test.")}
		reply.Extra = []dns.RR{rr(t, "mx.test. 30 IN A 6.6.6.6")}
		reply.Ns = []dns.RR{rr(t, "test. 30 IN NS ns.test."), rr(t, "ns.test. 30 IN A 6.6.6.6")}
	})
	i, _ := interceptor(r)
	m := ask(t, i, question("good.test.", dns.TypeMX), false)
	if len(m.Answer) != 1 || len(m.Extra) != 0 || len(m.Ns) != 1 || i.Pins.Len() != 0 {
		t.Errorf("%v, %d pins", m, i.Pins.Len())
	}
}

func TestRefusals(t *testing.T) {
	r := serve(t, zone(t, map[string][]string{"good.test.": {"good.test. 30 IN A 8.8.8.8"}}))
	chaos := question("version.bind.", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	update := question("good.test.", dns.TypeSOA)
	update.Opcode = dns.OpcodeUpdate
	two := question("good.test.", dns.TypeA)
	two.Question = append(two.Question, two.Question[0])
	none := question("good.test.", dns.TypeA)
	none.Question = nil
	withAnswer := question("good.test.", dns.TypeA)
	withAnswer.Answer = []dns.RR{rr(t, "good.test. 30 IN A 6.6.6.6")}
	twoOPT := question("good.test.", dns.TypeA).SetEdns0(1232, false)
	twoOPT.Extra = append(twoOPT.Extra, twoOPT.Extra[0])
	version := question("good.test.", dns.TypeA).SetEdns0(1232, false)
	version.IsEdns0().SetVersion(1)
	tests := map[string]struct {
		q    *dns.Msg
		want int
	}{
		"AXFR":               {question("good.test.", dns.TypeAXFR), dns.RcodeRefused},
		"IXFR":               {question("good.test.", dns.TypeIXFR), dns.RcodeRefused},
		"ANY":                {question("good.test.", dns.TypeANY), dns.RcodeRefused},
		"class CHAOS":        {chaos, dns.RcodeRefused},
		"update":             {update, dns.RcodeNotImplemented},
		"two questions":      {two, dns.RcodeFormatError},
		"no question":        {none, dns.RcodeFormatError},
		"brings an answer":   {withAnswer, dns.RcodeFormatError},
		"two OPT":            {twoOPT, dns.RcodeFormatError},
		"EDNS version 1":     {version, dns.RcodeBadVers},
		"mDNS name":          {question("printer.local.", dns.TypeA), dns.RcodeNameError},
		"link-local reverse": {question("1.1.254.169.in-addr.arpa.", dns.TypePTR), dns.RcodeNameError},
		"localhost":          {question("x.localhost.", dns.TypeA), dns.RcodeNameError},
		"onion":              {question("x.onion.", dns.TypeA), dns.RcodeNameError},
		"the host's name":    {question("Host.Cutout.internal.", dns.TypeA), dns.RcodeNameError},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			i, _ := interceptor(r)
			m := ask(t, i, test.q, false)
			if m == nil || m.Rcode != test.want || len(m.Answer) > 0 {
				t.Errorf("got %v, want %s", m, dns.RcodeToString[test.want])
			}
		})
	}
	if n := len(r.queries()); n != 0 {
		t.Errorf("%d queries went upstream", n)
	}

	for name, b := range map[string][]byte{
		"empty": {}, "short": make([]byte, 11),
		"a response": func() []byte {
			m := question("good.test.", dns.TypeA)
			m.Response = true
			b, _ := m.Pack()
			return b
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			i, _ := interceptor(r)
			if b := i.Answer(context.Background(), b, false); b != nil {
				t.Errorf("answered %x", b)
			}
		})
	}
}

func TestStatic(t *testing.T) {
	i, _ := interceptor() // no resolver: nothing is asked
	addrs := []netip.Addr{netip.MustParseAddr("198.18.0.5"), netip.MustParseAddr("fd99::5")}
	i.Static["api.test"] = addrs
	if m := ask(t, i, question("API.test.", dns.TypeA), false); len(m.Answer) != 1 || answers(m)[0] != "API.test. A 198.18.0.5" {
		t.Errorf("A: %v", m)
	}
	if m := ask(t, i, question("api.test.", dns.TypeAAAA), false); len(m.Answer) != 1 || answers(m)[0] != "api.test. AAAA fd99::5" {
		t.Errorf("AAAA: %v", m)
	}
	if m := ask(t, i, question("api.test.", dns.TypeHTTPS), false); m.Rcode != 0 || len(m.Answer) != 0 {
		t.Errorf("HTTPS: %v", m)
	}
	for _, a := range addrs {
		if !i.Pins.Pinned("api.test", a) {
			t.Errorf("%v is not pinned", a)
		}
	}
}

func TestProfileNone(t *testing.T) {
	r := serve(t, zone(t, nil))
	i, _ := interceptor(r)
	i.Network.Profile = policy.ProfileNone
	if m := ask(t, i, question("good.test.", dns.TypeA), false); m.Rcode != dns.RcodeRefused {
		t.Errorf("%v", m)
	}
	if len(r.queries()) != 0 {
		t.Error("the name went upstream")
	}
}

// A5: a private answer is given where an address rule opens it, and a rule
// about the name is none.
func TestPrivateAnswers(t *testing.T) {
	r := serve(t, zone(t, map[string][]string{"good.test.": {"good.test. 30 IN A 10.0.0.5"}}))
	for name, tt := range map[string]struct {
		target policy.Target
		want   int
	}{
		"address": {policy.Target{Prefix: netip.MustParsePrefix("10.0.0.5/32")}, dns.RcodeSuccess},
		"name":    {policy.Target{Name: hostname.Exact("good.test")}, dns.RcodeNameError},
	} {
		i, _ := interceptor(r)
		i.Network.Rules = []policy.Rule{{Allow: true, Direction: policy.Egress, Target: tt.target}}
		m := ask(t, i, question("good.test.", dns.TypeA), false)
		if m.Rcode != tt.want || i.Pins.Pinned("good.test", netip.MustParseAddr("10.0.0.5")) != (tt.want == dns.RcodeSuccess) {
			t.Errorf("%s: %v", name, m)
		}
	}
}

// TestNameNotAsked: a name that can be reached nowhere does not leave in a
// question, which would carry something out.
func TestNameNotAsked(t *testing.T) {
	r := serve(t, zone(t, map[string][]string{
		"good.test.": {"good.test. 30 IN A 8.8.8.8"}, "tunnel.test.": {"tunnel.test. 30 IN A 8.8.8.8"}, "key.test.": {"key.test. 30 IN A 8.8.8.8"},
	}))
	allow := policy.Rule{Allow: true, Direction: policy.Egress, Target: policy.Target{Name: hostname.Exact("good.test")}}
	for name, change := range map[string]func(*Interceptor){
		"allow-list":       func(i *Interceptor) { i.Network.Profile = policy.ProfileNone },
		"dns-only-allowed": func(i *Interceptor) { i.OnlyAllowed = true },
	} {
		i, log := interceptor(r)
		i.Network.Rules = []policy.Rule{allow}
		i.Mentioned = func(n hostname.Name) bool { return n == "key.test" }
		change(i)
		before := len(r.queries())
		for _, q := range []*dns.Msg{
			question("tunnel.test.", dns.TypeA), question("x.good.test.", dns.TypeTXT), question("_s.tunnel.test.", dns.TypeTXT), question(".", dns.TypeNS),
		} {
			if m := ask(t, i, q, false); m.Rcode != dns.RcodeNameError {
				t.Errorf("%s: %v", name, m)
			}
		}
		if n := len(r.queries()) - before; n != 0 {
			t.Errorf("%s: %d questions went out", name, n)
		}
		if !slices.Contains(log.reasons(), policy.NameDenied) {
			t.Errorf("%s: nothing was told", name)
		}
		if m := ask(t, i, question("good.test.", dns.TypeA), false); len(m.Answer) != 1 {
			t.Errorf("%s, allowed: %v", name, m)
		}
		if m := ask(t, i, question("key.test.", dns.TypeA), false); (len(m.Answer) == 1) != i.OnlyAllowed {
			t.Errorf("%s, a secret's host: %v", name, m)
		}
	}
}

// What we ask is ours: nothing of the guest's but name, type and DO.
func TestOwnQuestion(t *testing.T) {
	r := serve(t, zone(t, map[string][]string{"a-long-enough-name.good.test.": {"a-long-enough-name.good.test. 30 IN A 8.8.8.8"}}))
	i, _ := interceptor(r)
	ids, spellings := map[uint16]bool{}, map[string]bool{}
	for range 8 {
		q := question("a-long-enough-name.good.test.", dns.TypeA).SetEdns0(4096, true)
		q.Id, q.CheckingDisabled = 7, true
		q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(6, 6, 6, 0)})
		m := ask(t, i, q, false)
		if m.IsEdns0() == nil || m.Question[0].Name != "a-long-enough-name.good.test." {
			t.Errorf("answer %v", m)
		}
	}
	for _, q := range r.queries() {
		ids[q.Id], spellings[q.Question[0].Name] = true, true
		opt := q.IsEdns0()
		if q.CheckingDisabled || !q.RecursionDesired || opt == nil || !opt.Do() || len(opt.Option) != 0 {
			t.Errorf("asked %v", q)
		}
	}
	if len(ids) < 6 || len(spellings) < 6 {
		t.Errorf("%d ids and %d spellings in 8 queries", len(ids), len(spellings))
	}
}

// Forged answers: wrong id, wrong question, wrong case. None may be believed.
func TestForgedAnswers(t *testing.T) {
	forge := map[string]func(m *dns.Msg){
		"id":       func(m *dns.Msg) { m.Id++ },
		"name":     func(m *dns.Msg) { m.Question[0].Name = "other.test." },
		"type":     func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA },
		"none":     func(m *dns.Msg) { m.Question = nil },
		"case":     func(m *dns.Msg) { m.Question[0].Name = swapCase(m.Question[0].Name) },
		"query":    func(m *dns.Msg) { m.Response = false },
		"opcode":   func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify },
		"two":      func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
		"no match": func(m *dns.Msg) { m.Answer[0].Header().Name = "other.test." },
	}
	for name, change := range forge {
		t.Run(name, func(t *testing.T) {
			r := serve(t, func(w dns.ResponseWriter, q, reply *dns.Msg) {
				if w.RemoteAddr().Network() == "udp" {
					forged := reply.Copy()
					forged.Answer = []dns.RR{rr(t, q.Question[0].Name+" 30 IN A 6.6.6.6")}
					change(forged)
					w.WriteMsg(forged)
				}
				reply.Answer = []dns.RR{rr(t, q.Question[0].Name+" 30 IN A 8.8.8.8")}
			})
			i, _ := interceptor(r)
			m := ask(t, i, question("good.test.", dns.TypeA), false)
			if i.Pins.Pinned("good.test", netip.MustParseAddr("6.6.6.6")) || strings.Contains(fmt.Sprint(m), "6.6.6.6") {
				t.Errorf("believed %v", m)
			}
			if name != "no match" && !i.Pins.Pinned("good.test", netip.MustParseAddr("8.8.8.8")) {
				t.Errorf("the true answer was missed: %v", m)
			}
		})
	}
}

// By TCP, where letters' case need not come back, the question must still be
// ours.
func TestForgedAnswersOverTCP(t *testing.T) {
	r := serve(t, func(w dns.ResponseWriter, q, reply *dns.Msg) {
		if w.RemoteAddr().Network() == "udp" {
			reply.Truncated = true
			return
		}
		reply.Question[0].Name = "other.test."
		reply.Answer = []dns.RR{rr(t, "good.test. 30 IN A 6.6.6.6")}
	})
	i, _ := interceptor(r)
	m := ask(t, i, question("good.test.", dns.TypeA), false)
	if m.Rcode != dns.RcodeServerFailure || i.Pins.Len() != 0 {
		t.Errorf("believed %v", m)
	}
}

func swapCase(s string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r|0x20 && r|0x20 <= 'z' {
			return r ^ 0x20
		}
		return r
	}, s)
}

func TestFailover(t *testing.T) {
	good := serve(t, zone(t, map[string][]string{"good.test.": {"good.test. 30 IN A 8.8.8.8"}}))
	bad := map[string]*resolver{
		"silent":   serve(t, func(_ dns.ResponseWriter, _, m *dns.Msg) { m.Id, m.Rcode = 0, 0 }),
		"servfail": serve(t, func(_ dns.ResponseWriter, _, m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }),
		"refused":  serve(t, func(_ dns.ResponseWriter, _, m *dns.Msg) { m.Rcode = dns.RcodeRefused }),
		"closed":   {addr: closedPort(t)},
	}
	for name, first := range bad {
		t.Run(name, func(t *testing.T) {
			i, _ := interceptor(first, good)
			i.Timeout = 300 * time.Millisecond
			for range 3 {
				if m := ask(t, i, question("good.test.", dns.TypeA), false); len(m.Answer) != 1 {
					t.Errorf("%v", m)
				}
			}
			if n := len(first.queries()); n > 1 {
				t.Errorf("the failing resolver was asked %d times", n)
			}
		})
	}
	t.Run("all fail", func(t *testing.T) {
		i, log := interceptor(bad["silent"], bad["closed"])
		i.Timeout = 100 * time.Millisecond
		if m := ask(t, i, question("good.test.", dns.TypeA), false); m.Rcode != dns.RcodeServerFailure {
			t.Errorf("%v", m)
		}
		if !slices.Contains(log.reasons(), policy.UpstreamFailed) {
			t.Error("nothing was told")
		}
	})
}

func closedPort(t *testing.T) netip.AddrPort {
	pc, l := ports(t)
	defer pc.Close()
	defer l.Close()
	return netip.MustParseAddrPort(pc.LocalAddr().String())
}

func TestTruncation(t *testing.T) {
	records := []string{}
	for n := range 100 {
		records = append(records, fmt.Sprintf("big.test. 30 IN TXT \"%060d\"", n))
	}
	r := serve(t, func(w dns.ResponseWriter, q, reply *dns.Msg) {
		if w.RemoteAddr().Network() == "udp" { // as a resolver would
			reply.Truncated = true
			return
		}
		zone(t, map[string][]string{"big.test.": records})(w, q, reply)
	})
	i, _ := interceptor(r)
	q := question("big.test.", dns.TypeTXT)
	if m := ask(t, i, q, true); len(m.Answer) != 100 || m.Truncated {
		t.Errorf("by TCP: %d answers, truncated %v", len(m.Answer), m.Truncated)
	}
	for _, size := range []uint16{0, 512, 1232, 65535} {
		q := question("big.test.", dns.TypeTXT)
		if size > 0 {
			q.SetEdns0(size, false)
		}
		b, _ := q.Pack()
		out := i.Answer(context.Background(), b, false)
		m := new(dns.Msg)
		if m.Unpack(out) != nil || !m.Truncated || len(m.Answer) != 0 || len(out) > max(512, int(size)) {
			t.Errorf("size %d: %d bytes, %v", size, len(out), m)
		}
	}
}

func TestServeConn(t *testing.T) {
	r := serve(t, zone(t, map[string][]string{"good.test.": {"good.test. 30 IN A 8.8.8.8"}}))
	i, _ := interceptor(r)
	guest, boundary := net.Pipe()
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { i.ServeConn(ctx, boundary); close(done) }()
	c := &dns.Conn{Conn: guest}
	for range 3 {
		if err := c.WriteMsg(question("good.test.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		if m, err := c.ReadMsg(); err != nil || len(m.Answer) != 1 {
			t.Fatalf("%v, %v", m, err)
		}
	}
	cancel()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("ServeConn outlives its context")
	}
}

// TestQuestionsAreTold: a name that is answered, and one that is not asked for
// where there is no network, are on record.
func TestQuestionsAreTold(t *testing.T) {
	r := serve(t, zone(t, map[string][]string{"good.test.": {"good.test. 30 IN A 8.8.8.8"}}))
	i, log := interceptor(r)
	ask(t, i, question("good.test.", dns.TypeA), false)
	if e := log.last(); e.Event != audit.Resolved || e.Host != "good.test" || e.Detail != "A" {
		t.Errorf("told %+v", e)
	}
	i.Network.Profile = policy.ProfileNone
	if m := ask(t, i, question("good.test.", dns.TypeA), false); m.Rcode != dns.RcodeRefused || len(r.queries()) != 1 {
		t.Errorf("%v after %d questions", m, len(r.queries()))
	}
	if !slices.Equal(log.reasons(), []policy.Reason{policy.NetworkOff}) || log.last().Event != audit.Denied {
		t.Errorf("told %+v", log.last())
	}
}
