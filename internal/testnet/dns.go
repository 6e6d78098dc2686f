package testnet

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A Record is what a [DNS] server says about a name. Without addresses,
// CNAME and Extra the answer to a known name is empty (NODATA).
type Record struct {
	Addrs    []netip.Addr
	CNAME    string // followed inside the zone
	TTL      uint32 // 0 means 60
	RCode    dnsmessage.RCode
	Extra    []dnsmessage.Resource // given as they are when their type is asked for; the header's name is set
	Truncate bool                  // answer UDP with TC and nothing else
	Silent   bool                  // no answer at all
}

// A Query is a question that a [DNS] server received.
type Query struct {
	Name string // lower case, no trailing dot
	Type dnsmessage.Type
	TCP  bool
}

// DNS is an authoritative-looking server on one loopback port, UDP and TCP.
// Unknown names are NXDOMAIN.
type DNS struct {
	udp net.PacketConn
	tcp net.Listener
	wg  sync.WaitGroup

	mu      sync.Mutex
	zone    map[string]Record
	queries []Query
}

// StartDNS starts a server for zone, whose keys are names. Close it after
// use.
func StartDNS(zone map[string]Record) (*DNS, error) {
	d := &DNS{zone: map[string]Record{}}
	for name, r := range zone {
		d.Set(name, r)
	}
	for range 20 { // the TCP port may be free where the UDP port is not
		l, err := listen(netip.AddrPort{})
		if err != nil {
			return nil, err
		}
		p, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil {
			l.Close()
			continue
		}
		d.tcp, d.udp = l, p
		break
	}
	if d.udp == nil {
		return nil, io.ErrNoProgress
	}
	d.wg.Go(d.serveUDP)
	d.wg.Go(d.serveTCP)
	return d, nil
}

// Addr returns the server's address.
func (d *DNS) Addr() netip.AddrPort { return addrPort(d.tcp.Addr()) }

// Set replaces what is said about name.
func (d *DNS) Set(name string, r Record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.zone[plain(name)] = r
}

// Queries returns the questions received so far.
func (d *DNS) Queries() []Query {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.queries)
}

// Close stops the server.
func (d *DNS) Close() error {
	err := d.tcp.Close()
	d.udp.Close()
	d.wg.Wait()
	return err
}

func (d *DNS) serveUDP() {
	buf := make([]byte, 4096)
	for {
		n, from, err := d.udp.ReadFrom(buf)
		if err != nil {
			return
		}
		if out := d.answer(buf[:n], false); out != nil {
			d.udp.WriteTo(out, from)
		}
	}
}

func (d *DNS) serveTCP() {
	for {
		c, err := d.tcp.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			c.SetDeadline(time.Now().Add(time.Minute))
			for {
				var size [2]byte
				if _, err := io.ReadFull(c, size[:]); err != nil {
					return
				}
				msg := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(c, msg); err != nil {
					return
				}
				if out := d.answer(msg, true); out != nil {
					c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
				}
			}
		}()
	}
}

func (d *DNS) answer(msg []byte, tcp bool) []byte {
	var q dnsmessage.Message
	if err := q.Unpack(msg); err != nil || len(q.Questions) != 1 {
		return nil
	}
	question := q.Questions[0]
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queries = append(d.queries, Query{Name: plain(question.Name.String()), Type: question.Type, TCP: tcp})
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: q.ID, Response: true, Authoritative: true, RecursionDesired: q.RecursionDesired, RecursionAvailable: true},
		Questions: q.Questions,
	}
	if !d.fill(&reply, question, tcp) {
		return nil
	}
	out, err := reply.Pack()
	if err != nil {
		return nil
	}
	return out
}

// fill adds the answers, following CNAMEs, and reports whether to answer.
func (d *DNS) fill(m *dnsmessage.Message, q dnsmessage.Question, tcp bool) bool {
	name := q.Name
	for range 16 {
		r, ok := d.zone[plain(name.String())]
		switch {
		case !ok:
			m.RCode = dnsmessage.RCodeNameError
			return true
		case r.Silent:
			return false
		case r.Truncate && !tcp:
			m.Truncated = true
			return true
		}
		m.RCode = r.RCode
		h := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: r.TTL}
		if h.TTL == 0 {
			h.TTL = 60
		}
		for _, a := range r.Addrs {
			switch {
			case a.Is4() && q.Type == dnsmessage.TypeA:
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
			case a.Is6() && q.Type == dnsmessage.TypeAAAA:
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
			}
		}
		for _, x := range r.Extra {
			if x.Header.Type == q.Type || q.Type == dnsmessage.TypeALL {
				x.Header.Name, x.Header.Class = name, dnsmessage.ClassINET
				m.Answers = append(m.Answers, x)
			}
		}
		if r.CNAME == "" {
			return true
		}
		next, err := dnsmessage.NewName(plain(r.CNAME) + ".")
		if err != nil {
			return true
		}
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.CNAMEResource{CNAME: next}})
		name = next
	}
	return true
}

func plain(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
