package dns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/cutoutdev/cutout/internal/hostname"
)

// Sizes of a UDP message: what every client takes (RFC 1035 §4.2.1), what we
// offer (no fragments on any path, DNS flag day 2020) and the most that a
// client is believed.
const (
	minUDP = 512
	ourUDP = 1232
	maxUDP = 4096
)

// badVersion is the extended RCODE BADVERS, RFC 6891 §9.
const badVersion dnsmessage.RCode = 16

// Query types that x/net does not name.
const (
	typeIXFR  dnsmessage.Type = 251
	typeMAILB dnsmessage.Type = 253
	typeMAILA dnsmessage.Type = 254
	typeTKEY  dnsmessage.Type = 249
	typeTSIG  dnsmessage.Type = 250
	typeRRSIG dnsmessage.Type = 46
)

// A query is a question of the guest's, as it was asked.
type query struct {
	dnsmessage.Question
	header dnsmessage.Header
	text   string        // the name, lower case, without the trailing dot
	name   hostname.Name // the same, if it is a host name
	edns   bool
	size   int  // of UDP messages that the guest takes
	dnssec bool // the DO bit
}

// parseQuery reads a message. It reports false for one that gets no answer,
// and otherwise the RCODE of the refusal, or success.
func parseQuery(msg []byte) (q *query, rcode dnsmessage.RCode, ok bool) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.Response {
		return nil, 0, false
	}
	q = &query{header: h, size: minUDP}
	if h.OpCode != 0 {
		return q, dnsmessage.RCodeNotImplemented, true
	}
	counts := msg[4:12]
	questions, answers, authorities := binary.BigEndian.Uint16(counts), binary.BigEndian.Uint16(counts[2:]), binary.BigEndian.Uint16(counts[4:])
	if questions != 1 || answers != 0 || authorities != 0 {
		return q, dnsmessage.RCodeFormatError, true
	}
	question, err := p.Question()
	if err != nil {
		return q, dnsmessage.RCodeFormatError, true
	}
	q.Question = question
	q.text = key(question.Name)
	if name, err := hostname.Parse(q.text); err == nil && string(name) == q.text {
		q.name = name
	}
	if p.SkipAllQuestions() != nil || p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return q, dnsmessage.RCodeFormatError, true
	}
	if rcode := q.parseEDNS(&p); rcode != dnsmessage.RCodeSuccess {
		return q, rcode, true
	}
	return q, q.permit(), true
}

// parseEDNS reads the additional section, where only OPT has a meaning.
func (q *query) parseEDNS(p *dnsmessage.Parser) dnsmessage.RCode {
	for {
		h, err := p.AdditionalHeader()
		if err == dnsmessage.ErrSectionDone {
			return dnsmessage.RCodeSuccess
		}
		if err != nil {
			return dnsmessage.RCodeFormatError
		}
		if h.Type == dnsmessage.TypeOPT {
			if q.edns || h.Name.String() != "." { // RFC 6891 §6.1.1
				return dnsmessage.RCodeFormatError
			}
			q.edns, q.dnssec = true, h.DNSSECAllowed()
			q.size = min(max(int(h.Class), minUDP), maxUDP)
			if version := byte(h.TTL >> 16); version != 0 {
				return badVersion
			}
		}
		if p.SkipAdditional() != nil {
			return dnsmessage.RCodeFormatError
		}
	}
}

// permit says which questions are asked at all.
func (q *query) permit() dnsmessage.RCode {
	if q.Class != dnsmessage.ClassINET {
		return dnsmessage.RCodeRefused
	}
	switch q.Type {
	case dnsmessage.TypeAXFR, typeIXFR, typeMAILA, typeMAILB, dnsmessage.TypeALL, typeTKEY, typeTSIG:
		return dnsmessage.RCodeRefused
	case dnsmessage.TypeOPT, 0:
		return dnsmessage.RCodeFormatError
	}
	return dnsmessage.RCodeSuccess
}

// A response is what the guest is told.
type response struct {
	rcode         dnsmessage.RCode
	answers       []dnsmessage.Resource
	authorities   []dnsmessage.Resource
	authenticated bool // the resolver says so and nothing was changed
}

// pack writes r as the answer to q, with the guest's id and letter case. What
// does not fit is cut: the guest comes again by TCP.
func (q *query) pack(r response, tcp bool) []byte {
	m := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: q.header.ID, Response: true, OpCode: q.header.OpCode, RCode: r.rcode & 15,
			RecursionDesired: q.header.RecursionDesired, RecursionAvailable: true,
			AuthenticData: r.authenticated && (q.dnssec || q.header.AuthenticData),
		},
		Answers: r.answers, Authorities: r.authorities,
	}
	if q.Name.Length > 0 {
		m.Questions = []dnsmessage.Question{q.Question}
	}
	if q.edns {
		var h dnsmessage.ResourceHeader
		h.SetEDNS0(ourUDP, r.rcode, q.dnssec)
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
	}
	b, err := m.Pack()
	limit := q.size
	if tcp {
		limit = 65535
	}
	if err == nil && len(b) <= limit {
		return b
	}
	m.Answers, m.Authorities = nil, nil
	m.Truncated, m.AuthenticData = true, false
	if err != nil || tcp {
		m.Truncated, m.RCode = false, dnsmessage.RCodeServerFailure
	}
	if b, err = m.Pack(); err != nil {
		return nil
	}
	return b
}

// key is the form in which names are compared: ASCII lower case (RFC 4343, so
// not by Unicode's rules), without the trailing dot.
func key(n dnsmessage.Name) string {
	b := []byte(n.String())
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(bytes.TrimSuffix(b, []byte(".")))
}

// readMessage reads one message with its length before it.
func readMessage(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(head[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeMessage(w io.Writer, b []byte) error {
	if len(b) > 65535 {
		return errors.New("message is too long")
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}
