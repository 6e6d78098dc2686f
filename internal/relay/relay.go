// Package relay passes what has no connection of its own: datagrams and
// pings.
//
// Each pair of a guest's address and a destination is a session with a socket
// of its own, which hears the destination alone. A session is judged when it
// begins and ends when it has been idle. What is refused is refused at once,
// by ICMP, so that clients fall back; nothing is ever held back for lack of
// an answer. Neither placeholders nor values are looked for in datagrams:
// nothing of what a secret's host speaks over QUIC is let out.
package relay

import (
	"container/list"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/conntrack"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
)

const (
	// maxSessions: a client program has a handful; each has a socket and a
	// goroutine. At the cap the idlest ends, so that a scan does not lock the
	// guest out.
	maxSessions = 512
	// udpIdle is what RFC 4787 REQ-5 asks of translators at least.
	udpIdle = 2 * time.Minute
	// echoIdle is longer than any ping program waits for an answer.
	echoIdle = 30 * time.Second
	// writeLimit is how long a full socket buffer may hold up the guest's
	// link before the datagram is lost, as any network would lose it.
	writeLimit = 10 * time.Millisecond
)

// Pins is where the names of an address are known; *pin.Table is one.
type Pins interface {
	Names(addr netip.Addr) []hostname.Name
}

// Config is what a Relay works with. Network and Audit are needed.
type Config struct {
	Network *policy.Network
	// Conns is told the sessions; nil: nobody looks.
	Conns *conntrack.Table
	// Direction is whose datagrams these are; "": the guest's.
	Direction policy.Direction
	// Pins knows the names of destinations; nil: nobody does.
	Pins  Pins
	Audit func(audit.Event)
	// Secret reports whether name is a host of some secret; nil: none is.
	Secret func(name hostname.Name) bool
	// Host maps an address that stands for this machine's loopback; nil:
	// there is none.
	Host func(dst netip.AddrPort) (loopback netip.AddrPort, ok bool)
	// Dial opens a socket that sends to dst and hears dst alone; nil: one of
	// this machine's.
	Dial func(p policy.Protocol, dst netip.AddrPort) (Socket, error)
	// Idle is how long a session of datagrams lives without one; 0: 2 min.
	Idle time.Duration
}

// A Socket carries datagrams with one peer.
type Socket interface {
	Read(b []byte) (int, error)
	Write(b []byte) (int, error)
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
	Close() error
}

// A Datagram is one that the guest sends, or one for it.
type Datagram struct {
	Src, Dst netip.AddrPort
	Via      netip.AddrPort // the published port that it came to, if any
	Payload  []byte
	// Reply sends one back, from Dst to Src. It may be called as long as the
	// Relay is open.
	Reply func(b []byte) error
	// Refuse tells the guest by ICMP that nobody is there.
	Refuse func()
}

// A Ping is an echo request of the guest's.
type Ping struct {
	Src, Dst netip.Addr
	ID, Seq  uint16
	Payload  []byte
	Reply    func(seq uint16, payload []byte) error
	Refuse   func()
}

// A Relay serves one sandbox. Its methods may be called from several
// goroutines and do not block for longer than writeLimit.
type Relay struct {
	cfg Config

	mu       sync.Mutex
	closed   bool
	sessions map[key]*session
	age      list.List // of *session, idlest first
	running  sync.WaitGroup
}

type key struct {
	protocol policy.Protocol
	src, dst netip.AddrPort // the id of a ping in place of src's port
	via      netip.AddrPort
}

// A session is a socket and the goroutine that reads it.
type session struct {
	key
	rule   string
	names  []hostname.Name
	socket Socket
	idle   time.Duration
	begun  time.Time
	used   atomic.Int64 // nanoseconds since begun: the time of day may jump
	elem   *list.Element
	entry  *conntrack.Conn
}

// New returns an open relay.
func New(cfg Config) *Relay {
	if cfg.Dial == nil {
		cfg.Dial = dial
	}
	if cfg.Idle == 0 {
		cfg.Idle = udpIdle
	}
	return &Relay{cfg: cfg, sessions: make(map[key]*session)}
}

// Datagram passes d on or refuses it.
func (r *Relay) Datagram(d Datagram) {
	k := key{policy.UDP, d.Src, netip.AddrPortFrom(d.Dst.Addr().Unmap(), d.Dst.Port()), d.Via}
	reply, refuse := d.Reply, d.Refuse // not d, whose payload would stay as long as the session
	s := r.session(k, r.cfg.Idle, func(s *session) {
		r.read(s, func(b []byte) { reply(b) }, refuse)
	})
	if s == nil || !s.send(d.Payload) {
		d.Refuse()
	}
}

// Ping passes p on or refuses it.
func (r *Relay) Ping(p Ping) {
	k := key{policy.ICMP, netip.AddrPortFrom(p.Src, p.ID), netip.AddrPortFrom(p.Dst.Unmap(), 0), netip.AddrPort{}}
	s := r.session(k, echoIdle, func(s *session) {
		r.read(s, func(b []byte) {
			if seq, payload, ok := parseEcho(b); ok {
				p.Reply(seq, payload)
			}
		}, func() {})
	})
	if s == nil || !s.send(echo(k.dst.Addr(), p.Seq, p.Payload)) {
		p.Refuse()
	}
}

// use puts off the session's end.
func (s *session) use() { s.used.Store(int64(time.Since(s.begun))) }

// send reports whether somebody may be there.
func (s *session) send(b []byte) bool {
	s.use()
	s.socket.SetWriteDeadline(time.Now().Add(writeLimit))
	n, err := s.socket.Write(b)
	s.count(0, n)
	return !refused(err)
}

// count counts what was read from the socket and written to it.
func (s *session) count(read, written int) {
	if s.via.IsValid() {
		read, written = written, read // the guest is the socket's peer
	}
	s.entry.Count(read, written)
}

func (s *session) flow(d policy.Direction) conntrack.Flow {
	f := conntrack.Flow{Direction: policy.Egress, Protocol: s.protocol, Src: s.src, Dst: s.dst, Rule: s.rule, State: conntrack.Spliced}
	if len(s.names) > 0 {
		f.Name = string(s.names[0])
	}
	if d == policy.Ingress {
		f.Direction, f.Dst = d, s.via
	}
	return f
}

// session returns the session of k, a new one if it may be, or nil.
func (r *Relay) session(k key, idle time.Duration, serve func(*session)) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	if s := r.sessions[k]; s != nil {
		r.age.MoveToBack(s.elem)
		return s
	}
	s := &session{key: k, idle: idle, begun: time.Now()}
	to, reason := r.judge(s)
	if reason != policy.None {
		r.tell(s, audit.Denied, reason, "")
		return nil
	}
	var err error
	if s.socket, err = r.cfg.Dial(k.protocol, to); err != nil {
		reason, detail := policy.UpstreamFailed, ""
		if errors.Is(err, errNoPing) {
			reason, detail = policy.ProtocolDenied, err.Error()
		}
		r.tell(s, audit.Denied, reason, detail)
		return nil
	}
	if len(r.sessions) >= maxSessions {
		r.tell(s, audit.Denied, policy.LimitReached, "UDP sessions: the idlest ends")
		r.remove(r.age.Front().Value.(*session))
	}
	if r.cfg.Direction == policy.Ingress {
		r.tell(s, audit.Admitted, policy.None, "")
	}
	r.sessions[k] = s
	s.elem = r.age.PushBack(s)
	s.entry = r.cfg.Conns.Add(s.flow(r.cfg.Direction))
	r.running.Go(func() {
		serve(s)
		r.mu.Lock()
		r.remove(s)
		r.mu.Unlock()
	})
	return s
}

// judge asks the network, and keeps what is blind to us from the hosts of
// secrets whatever a rule says: their clients then use what can be looked
// into.
func (r *Relay) judge(s *session) (to netip.AddrPort, reason policy.Reason) {
	to = s.dst
	if r.cfg.Direction == policy.Ingress {
		v := r.cfg.Network.Decide(policy.Query{Direction: policy.Ingress, Protocol: s.protocol, Addr: s.src.Addr().WithZone(""), Port: s.dst.Port()})
		s.rule = v.Rule
		return to, v.Reason
	}
	if r.cfg.Pins != nil {
		s.names = r.cfg.Pins.Names(s.dst.Addr())
	}
	if r.cfg.Host != nil {
		if host, ok := r.cfg.Host(s.dst); ok {
			to, s.names = host, append(s.names, policy.HostName)
		}
	}
	q := policy.Query{Direction: policy.Egress, Protocol: s.protocol, Addr: to.Addr(), Port: to.Port(), Names: s.names, Spoken: true}
	v := r.cfg.Network.Decide(q)
	s.rule = v.Rule
	if v.Allowed && q.Blind() && r.cfg.Secret != nil {
		for _, n := range s.names {
			if r.cfg.Secret(n) {
				return to, policy.ProtocolDenied
			}
		}
	}
	return to, v.Reason
}

// read passes what the peer sends to the guest until the session has been
// idle or is closed.
func (r *Relay) read(s *session, reply func([]byte), unreachable func()) {
	pass := func(b []byte) {
		s.use()
		s.count(len(b), 0)
		reply(b)
	}
	for {
		left := s.idle - (time.Since(s.begun) - time.Duration(s.used.Load()))
		if left <= 0 {
			return
		}
		s.socket.SetReadDeadline(time.Now().Add(left))
		err := receive(s.socket, pass)
		timeout := net.Error(nil)
		switch {
		case err == nil:
		case errors.As(err, &timeout) && timeout.Timeout():
		case refused(err):
			unreachable()
		default:
			return
		}
	}
}

// remove ends s. r.mu is held.
func (r *Relay) remove(s *session) {
	if r.sessions[s.key] != s {
		return
	}
	delete(r.sessions, s.key)
	r.age.Remove(s.elem)
	s.socket.Close()
	s.entry.Close()
}

// Close ends every session and waits for them.
func (r *Relay) Close() {
	r.mu.Lock()
	r.closed = true
	for _, s := range r.sessions {
		r.remove(s)
	}
	r.mu.Unlock()
	r.running.Wait()
}

// tell records what became of a session.
func (r *Relay) tell(s *session, event string, reason policy.Reason, detail string) {
	e := audit.Event{Event: event, Reason: reason, Rule: s.rule, Detail: detail, Dst: s.dst.String()}
	switch {
	case s.protocol == policy.ICMP:
		e.Dst = s.dst.Addr().String()
	case s.via.IsValid():
		e.Src, e.Dst = s.src.Addr().String(), s.via.String()
	}
	if len(s.names) > 0 {
		e.Host = string(s.names[0])
	}
	if e.Detail == "" {
		e.Detail = string(s.protocol)
	}
	r.cfg.Audit(e)
}
