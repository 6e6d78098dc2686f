// Package dns answers every DNS query of the guest, whatever server the guest
// meant, through the resolvers that the user configured.
//
// It asks its own question (own id, port and letter case), checks that the
// answer is to it, and only then pins the addresses for the name. It removes
// from the answer what would lead around the boundary: private and reserved
// addresses, ech, h3 and address hints. It refuses transfers, ANY and all but
// plain queries, and never answers for names that mean something only on the
// host's own link. There is no cache: the host's resolver has one.
package dns

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/time/rate"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/pin"
	"github.com/cutoutdev/cutout/internal/policy"
)

// maxInFlight bounds the queries being asked upstream, each with a socket of
// its own. A client program has a handful; over the bound the guest is told
// SERVFAIL.
const maxInFlight = 256

// Questions a second and at once. A page of the web asks some fifty, an
// installer of packages some hundred; who asks more, tunnels or floods, and is
// told SERVFAIL, on which clients ask again.
const (
	queryRate  = 200
	queryBurst = 400
)

// staticTTL is the TTL, in seconds, of names that are answered from Static.
const staticTTL = 60

// An Interceptor answers queries. The zero Interceptor uses the host's
// resolvers, the profile public, and pins nothing. Its fields must not be
// changed after the first query; its methods may be called from several
// goroutines.
type Interceptor struct {
	// Resolvers are asked in order, the next when one fails; nil: those of
	// ResolvConf.
	Resolvers []netip.AddrPort
	// ResolvConf is read again whenever it has changed; "": /etc/resolv.conf.
	ResolvConf string
	// Pins is told every address that the guest is given; nil: none is.
	Pins *pin.Table
	// Network judges the addresses; nil: the profile public.
	Network *policy.Network
	// Lacks reports whether this machine has no way to an address: it is left
	// out. Nil: it has one to all.
	Lacks func(netip.Addr) bool
	// Static are names that are answered here, past Network, and pinned for
	// good.
	Static map[hostname.Name][]netip.Addr
	// OnlyAllowed refuses to ask for names that neither a rule of Network nor
	// Mentioned names: a question can carry something out in the name.
	OnlyAllowed bool
	// Unknown gives addresses to a name that no resolver knows, which somebody
	// else is going to resolve; ok is false if there are no more. Nil: such
	// names are answered as they are.
	Unknown func(hostname.Name) (addrs []netip.Addr, ok bool)
	// Mentioned reports whether something besides the rules names a name;
	// nil: nothing does.
	Mentioned func(hostname.Name) bool
	// Audit is told what was resolved and what was denied; nil: nobody.
	Audit func(audit.Event)
	// Timeout is how long one resolver is waited for; 0: 2 s.
	Timeout time.Duration

	conf      resolvConf
	asked     sync.Once
	rate      *rate.Limiter // of questions; set by asked
	inFlight  atomic.Int32
	preferred atomic.Uint32 // index of the resolver that answered last
}

// Answer returns the response to one message of the guest, or nil if it
// deserves none. tcp says that it came by TCP, so that length does not
// matter.
func (i *Interceptor) Answer(ctx context.Context, msg []byte, tcp bool) []byte {
	q, rcode, ok := parseQuery(msg)
	if !ok {
		return nil
	}
	if rcode == dnsmessage.RCodeSuccess {
		return q.pack(i.resolve(ctx, q), tcp)
	}
	return q.pack(response{rcode: rcode}, tcp)
}

// resolve answers a well-formed query.
func (i *Interceptor) resolve(ctx context.Context, q *query) response {
	i.asked.Do(func() { i.rate = rate.NewLimiter(queryRate, queryBurst) })
	if !i.rate.Allow() {
		return i.deny(q, policy.Verdict{Reason: policy.LimitReached}, "too many queries a second", dnsmessage.RCodeServerFailure)
	}
	if addrs, ok := i.Static[q.name]; ok && q.name != "" {
		return i.static(q, addrs)
	}
	if localName(q.text) {
		return response{rcode: dnsmessage.RCodeNameError}
	}
	mentioned := i.Mentioned != nil && i.Mentioned(q.name)
	if v := i.network().Lookup(q.name, i.OnlyAllowed, mentioned); !v.Allowed {
		rcode := dnsmessage.RCodeRefused
		if v.Reason == policy.NameDenied || v.Reason == policy.RuleDenied {
			rcode = dnsmessage.RCodeNameError // a client does not go on to the next resolver
		}
		return i.deny(q, v, "", rcode)
	}
	if i.inFlight.Add(1) > maxInFlight {
		i.inFlight.Add(-1)
		return i.deny(q, policy.Verdict{Reason: policy.LimitReached}, "too many queries at once", dnsmessage.RCodeServerFailure)
	}
	defer i.inFlight.Add(-1)
	if i.Unknown != nil && q.name != "" {
		return i.orUnknown(ctx, q)
	}
	m, err := i.exchange(ctx, q)
	return i.answered(q, m, err)
}

// answered is the response to what the resolvers said.
func (i *Interceptor) answered(q *query, m *dnsmessage.Message, err error) response {
	if err != nil {
		i.audit(audit.Event{Event: audit.Denied, Reason: policy.UpstreamFailed, Host: q.text, Detail: "no resolver answered"})
		return response{rcode: dnsmessage.RCodeServerFailure}
	}
	return i.sanitize(q, m)
}

// static answers from Static; a type that is not there is "no data".
func (i *Interceptor) static(q *query, addrs []netip.Addr) response {
	r := response{answers: i.records(q, addrs)}
	i.resolved(q, len(r.answers))
	return r
}

// records are those of the addresses that q asks for. All are pinned for good.
func (i *Interceptor) records(q *query, addrs []netip.Addr) (out []dnsmessage.Resource) {
	for _, a := range addrs {
		if i.Pins != nil {
			i.Pins.AddStatic(q.name, a)
		}
		var body dnsmessage.ResourceBody
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			body = &dnsmessage.AResource{A: a.As4()}
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			body = &dnsmessage.AAAAResource{AAAA: a.As16()}
		default:
			continue
		}
		out = append(out, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: staticTTL},
			Body:   body,
		})
	}
	return out
}

func (i *Interceptor) resolved(q *query, n int) {
	if n > 0 {
		i.audit(audit.Event{Event: audit.Resolved, Host: q.text, Detail: typeName(q.Type)})
	}
}

func (i *Interceptor) deny(q *query, v policy.Verdict, detail string, rcode dnsmessage.RCode) response {
	i.audit(audit.Event{Event: audit.Denied, Reason: v.Reason, Host: q.text, Rule: v.Rule, Detail: detail})
	return response{rcode: rcode}
}

func (i *Interceptor) audit(e audit.Event) {
	if i.Audit != nil {
		i.Audit(e)
	}
}

var publicNetwork = policy.NewNetwork(policy.ProfilePublic)

func (i *Interceptor) network() *policy.Network {
	if i.Network == nil {
		return publicNetwork
	}
	return i.Network
}

// localSuffixes are names that a resolver on the host could answer from the
// host's own link or from itself: mDNS and its reverse zones (RFC 6762 §12),
// localhost and the names that exist nowhere (RFC 6761, RFC 7686). The last
// is ours.
var localSuffixes = []string{
	"local", "254.169.in-addr.arpa", "8.e.f.ip6.arpa", "9.e.f.ip6.arpa", "a.e.f.ip6.arpa", "b.e.f.ip6.arpa",
	"localhost", "invalid", "onion", "cutout.internal",
}

func localName(text string) bool {
	for _, s := range localSuffixes {
		if head, ok := strings.CutSuffix(text, s); ok && (head == "" || strings.HasSuffix(head, ".")) {
			return true
		}
	}
	return false
}

// typeName is A, AAAA and so on, for people.
func typeName(t dnsmessage.Type) string { return strings.TrimPrefix(t.String(), "Type") }

// idleTimeout is how long a TCP connection may stay without a query. RFC 7766
// §6.2.3 asks for seconds.
const idleTimeout = 10 * time.Second

// ServeConn answers the messages on a TCP connection, RFC 1035 §4.2.2, one
// after the other, until its end or ctx's, and closes it.
func (i *Interceptor) ServeConn(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	for {
		conn.SetDeadline(time.Now().Add(idleTimeout))
		msg, err := readMessage(conn)
		if err != nil {
			return
		}
		answer := i.Answer(ctx, msg, true)
		if answer == nil {
			return
		}
		conn.SetDeadline(time.Now().Add(idleTimeout))
		if writeMessage(conn, answer) != nil {
			return
		}
	}
}
