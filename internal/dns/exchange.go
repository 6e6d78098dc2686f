package dns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// attempts is how often the whole list of resolvers is gone through, and
// maxResolvers how much of it (glibc's MAXNS): with the default timeout the
// guest, which asks again after 5 s, hears of a failure in time.
const (
	attempts     = 2
	maxResolvers = 3
	totalTimeout = 8 * time.Second
)

var errNoAnswer = errors.New("no resolver answered")

// exchange asks the resolvers until one answers. A resolver that fails (no
// answer, SERVFAIL, REFUSED) is followed by the next; the one that answered
// is asked first the next time.
func (i *Interceptor) exchange(ctx context.Context, q *query) (*dnsmessage.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, totalTimeout)
	defer cancel()
	resolvers := i.Resolvers
	if resolvers == nil {
		resolvers = i.conf.resolvers(i.ResolvConf)
	}
	resolvers = resolvers[:min(len(resolvers), maxResolvers)]
	first := int(i.preferred.Load())
	var failure *dnsmessage.Message
	for n := range attempts * len(resolvers) {
		at := (first + n) % len(resolvers)
		m, err := i.ask(ctx, q, resolvers[at])
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			continue
		}
		switch m.RCode {
		case dnsmessage.RCodeSuccess, dnsmessage.RCodeNameError:
			i.preferred.Store(uint32(at))
			return m, nil
		}
		failure = m
		if n >= len(resolvers)-1 {
			break // every one has had its say
		}
	}
	if failure != nil {
		return failure, nil
	}
	return nil, errNoAnswer
}

// ask asks one resolver, by UDP and, if that is cut or somebody changed the
// letters, by TCP.
func (i *Interceptor) ask(ctx context.Context, q *query, resolver netip.AddrPort) (*dnsmessage.Message, error) {
	timeout := i.Timeout
	if timeout == 0 {
		timeout = 2 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	own, msg, err := q.own()
	if err != nil {
		return nil, err
	}
	m, err := overUDP(ctx, resolver, own, msg)
	if err != nil {
		return nil, err
	}
	if m == nil || m.Truncated {
		return overTCP(ctx, resolver, own, msg)
	}
	return m, nil
}

// own returns our question for q: own id, random letter case (0x20), no
// option of the guest's. CD is never set: a resolver that validates must not
// be talked out of it, since its answer becomes a pin.
func (q *query) own() (own *dnsmessage.Message, msg []byte, err error) {
	var random [2 + 32]byte
	rand.Read(random[:])
	own = &dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: binary.BigEndian.Uint16(random[:]), RecursionDesired: true,
			AuthenticData: q.header.AuthenticData || q.dnssec,
		},
		Questions: []dnsmessage.Question{q.Question},
	}
	name := &own.Questions[0].Name
	for n := range int(name.Length) {
		c := &name.Data[n]
		if letter := *c | 0x20; 'a' <= letter && letter <= 'z' {
			*c = letter &^ (random[2+n/8] >> (n % 8) & 1 << 5)
		}
	}
	var h dnsmessage.ResourceHeader
	h.SetEDNS0(ourUDP, dnsmessage.RCodeSuccess, q.dnssec)
	own.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
	msg, err = own.Pack()
	return own, msg, err
}

// overUDP asks from a fresh socket, so that the port is the kernel's random
// choice, and waits past messages that are no answer. It returns nil if the
// answer is right but for the letters' case: that must be asked again where
// nobody can forge it.
func overUDP(ctx context.Context, resolver netip.AddrPort, own *dnsmessage.Message, msg []byte) (*dnsmessage.Message, error) {
	conn, err := dial(ctx, "udp", resolver)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write(msg); err != nil {
		return nil, err
	}
	buf := make([]byte, 65535)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		m, exact := match(buf[:n], own)
		switch {
		case m == nil:
			continue
		case !exact:
			return nil, nil
		}
		return m, nil
	}
}

func overTCP(ctx context.Context, resolver netip.AddrPort, own *dnsmessage.Message, msg []byte) (*dnsmessage.Message, error) {
	conn, err := dial(ctx, "tcp", resolver)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := writeMessage(conn, msg); err != nil {
		return nil, err
	}
	b, err := readMessage(conn)
	if err != nil {
		return nil, err
	}
	if m, _ := match(b, own); m != nil {
		return m, nil
	}
	return nil, errors.New("resolver answered another question")
}

func dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, to.String())
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	return conn, nil
}

// match returns b as a message if it is an answer to own, and whether the
// name came back letter for letter. A cut message need not parse.
func match(b []byte, own *dnsmessage.Message) (m *dnsmessage.Message, exact bool) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || h.ID != own.ID || !h.Response || h.OpCode != 0 {
		return nil, false
	}
	questions, err := p.AllQuestions()
	if err != nil || len(questions) != 1 {
		return nil, false
	}
	got, want := questions[0], own.Questions[0]
	if got.Type != want.Type || got.Class != want.Class || key(got.Name) != key(want.Name) {
		return nil, false
	}
	m = &dnsmessage.Message{Header: h, Questions: questions}
	if !h.Truncated && m.Unpack(b) != nil {
		m = &dnsmessage.Message{Header: h, Questions: questions}
		m.RCode = dnsmessage.RCodeServerFailure // as good as no answer
	}
	return m, got.Name == want.Name
}
