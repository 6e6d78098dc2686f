package dns

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/pin"
	"github.com/cutoutdev/cutout/internal/policy"
)

// A resolver is a small real DNS server on loopback, UDP and TCP.
type resolver struct {
	addr netip.AddrPort
	mu   sync.Mutex
	seen []*dns.Msg
	net  []string // "udp" or "tcp" for each of seen
}

// serve starts a resolver; answer fills in a reply.
func serve(t *testing.T, answer func(w dns.ResponseWriter, q, reply *dns.Msg)) *resolver {
	t.Helper()
	pc, l := ports(t)
	r := &resolver{addr: netip.MustParseAddrPort(pc.LocalAddr().String())}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		r.mu.Lock()
		r.seen = append(r.seen, q)
		r.net = append(r.net, w.RemoteAddr().Network())
		r.mu.Unlock()
		reply := new(dns.Msg).SetReply(q)
		reply.RecursionAvailable = true
		answer(w, q, reply)
		if reply.Id != 0 || reply.Rcode != 0 {
			w.WriteMsg(reply)
		}
	})
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: l, Handler: handler}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	return r
}

func ports(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if l, err := net.Listen("tcp", pc.LocalAddr().String()); err == nil {
			return pc, l
		}
		pc.Close()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

func (r *resolver) queries() []*dns.Msg {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*dns.Msg(nil), r.seen...)
}

func rr(t testing.TB, s string) dns.RR {
	t.Helper()
	r, err := dns.NewRR(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// zone answers with the records, given as text, that stand for the name asked
// for; unknown names do not exist.
func zone(t *testing.T, records map[string][]string) func(dns.ResponseWriter, *dns.Msg, *dns.Msg) {
	return func(_ dns.ResponseWriter, q, reply *dns.Msg) {
		list, ok := records[strings.ToLower(q.Question[0].Name)]
		if !ok {
			reply.Rcode = dns.RcodeNameError
			reply.Ns = append(reply.Ns, rr(t, "test. 300 IN SOA ns.test. root.test. 1 2 3 4 5"))
		}
		for _, s := range list {
			reply.Answer = append(reply.Answer, rr(t, s))
		}
	}
}

// events are what the interceptor told the audit log.
type events struct {
	mu   sync.Mutex
	list []audit.Event
}

func (e *events) add(x audit.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, x)
}

func (e *events) reasons() []policy.Reason {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []policy.Reason
	for _, x := range e.list {
		if x.Reason != "" {
			out = append(out, x.Reason)
		}
	}
	return out
}

func (e *events) last() audit.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.list) == 0 {
		return audit.Event{}
	}
	return e.list[len(e.list)-1]
}

func interceptor(resolvers ...*resolver) (*Interceptor, *events) {
	var log events
	i := &Interceptor{
		Pins: &pin.Table{}, Network: &policy.Network{Local: func(netip.Addr) bool { return false }},
		Static: map[hostname.Name][]netip.Addr{}, Audit: log.add, Timeout: 3 * time.Second,
		Resolvers: []netip.AddrPort{},
	}
	for _, r := range resolvers {
		i.Resolvers = append(i.Resolvers, r.addr)
	}
	return i, &log
}

// ask sends q as the guest and returns the answer, parsed by another library.
func ask(t testing.TB, i *Interceptor, q *dns.Msg, tcp bool) *dns.Msg {
	t.Helper()
	b, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	out := i.Answer(context.Background(), b, tcp)
	if out == nil {
		return nil
	}
	m := new(dns.Msg)
	if err := m.Unpack(out); err != nil {
		t.Fatalf("the answer does not parse: %v", err)
	}
	if m.Id != q.Id || !m.Response {
		t.Errorf("id %d, response %v; want the guest's id %d", m.Id, m.Response, q.Id)
	}
	return m
}

func question(name string, kind uint16) *dns.Msg { return new(dns.Msg).SetQuestion(name, kind) }

// answers is the answer section as text, without TTLs.
func answers(m *dns.Msg) []string {
	out := []string{}
	for _, r := range m.Answer {
		f := strings.Fields(r.String())
		out = append(out, f[0]+" "+strings.Join(f[3:], " "))
	}
	return out
}
