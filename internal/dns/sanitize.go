package dns

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
)

// maxTTL is the longest TTL that the guest is told, in seconds: the longest
// life of a pin.
const maxTTL = 24 * 60 * 60

// maxChain is how many CNAMEs are followed. Resolvers stop between 8 and 16.
const maxChain = 16

// sanitize makes the guest's response of a resolver's: the records of the
// chain that begins with the name asked for, without what leads around the
// boundary or nowhere. It pins the addresses that stay.
func (i *Interceptor) sanitize(q *query, m *dnsmessage.Message) response {
	r := response{rcode: m.RCode, authenticated: m.AuthenticData}
	switch m.RCode {
	case dnsmessage.RCodeSuccess, dnsmessage.RCodeNameError:
	default:
		return r
	}
	for _, rr := range m.Authorities {
		if !address(rr) && rr.Header.Class == dnsmessage.ClassINET {
			r.authorities = append(r.authorities, rr)
		}
	}
	c := follow(q, m.Answers)
	var denied policy.Verdict
	for _, rr := range c.records {
		if a, ok := addressOf(rr); ok {
			if i.Lacks != nil && i.Lacks(a) {
				continue
			}
			if v := i.admit(q, a, c.ttl); !v.Allowed {
				denied = v
				continue
			}
		}
		switch body := rr.Body.(type) {
		case *dnsmessage.HTTPSResource:
			if !service(&body.SVCBResource, rr.Header.Name) {
				continue
			}
		case *dnsmessage.SVCBResource:
			if !service(body, rr.Header.Name) {
				continue
			}
		}
		rr.Header.TTL = min(rr.Header.TTL, maxTTL)
		r.answers = append(r.answers, rr)
	}
	if changed := len(r.answers) != len(m.Answers) || c.services; changed {
		r.authenticated = false
		r.answers = unsigned(r.answers)
	}
	n := countAddresses(r.answers)
	if denied.Reason != policy.None && n == 0 {
		return i.deny(q, denied, "all addresses are denied: "+string(denied.Class), dnsmessage.RCodeNameError)
	}
	i.resolved(q, n)
	restoreCase(q, r.answers)
	return r
}

// admit judges one address and, if the guest may have it, pins it.
func (i *Interceptor) admit(q *query, a netip.Addr, ttl uint32) policy.Verdict {
	v := i.network().Address(a, q.names()...)
	if v.Allowed && i.Pins != nil && q.name != "" {
		i.Pins.Add(q.name, a, time.Duration(ttl)*time.Second)
	}
	return v
}

// names is the name asked for as rules know it: none if it is no host name.
func (q *query) names() []hostname.Name {
	if q.name == "" {
		return nil
	}
	return []hostname.Name{q.name}
}

// A chain is the part of an answer that belongs to the question.
type chain struct {
	records  []dnsmessage.Resource
	ttl      uint32 // the least of the links
	services bool   // holds HTTPS or SVCB records
}

// follow goes from the name asked for along CNAMEs to its end and takes the
// records of the type asked for there, with the links and the signatures.
// What is not connected was not asked for.
func follow(q *query, answers []dnsmessage.Resource) chain {
	c := chain{ttl: maxTTL}
	at := q.text
	for range maxChain {
		next := ""
		for _, rr := range answers {
			if rr.Header.Class != dnsmessage.ClassINET {
				continue
			}
			if rr.Header.Type == dnsmessage.TypeCNAME && q.Type != dnsmessage.TypeCNAME && next == "" && key(rr.Header.Name) == at {
				next = key(rr.Body.(*dnsmessage.CNAMEResource).CNAME)
				c.add(rr)
			}
		}
		if next == "" || next == at {
			break
		}
		c.signatures(answers, at)
		at = next
	}
	for _, rr := range answers {
		if rr.Header.Class == dnsmessage.ClassINET && rr.Header.Type == q.Type && key(rr.Header.Name) == at {
			c.add(rr)
			c.services = c.services || q.Type == dnsmessage.TypeHTTPS || q.Type == dnsmessage.TypeSVCB
		}
	}
	if q.Type != typeRRSIG {
		c.signatures(answers, at)
	}
	return c
}

func (c *chain) add(rr dnsmessage.Resource) {
	c.records = append(c.records, rr)
	c.ttl = min(c.ttl, rr.Header.TTL)
}

func (c *chain) signatures(answers []dnsmessage.Resource, owner string) {
	for _, rr := range answers {
		if rr.Header.Type == typeRRSIG && key(rr.Header.Name) == owner {
			c.records = append(c.records, rr)
		}
	}
}

// service takes out of an HTTPS or SVCB record what would lead around the
// boundary: ech (hides the name), h3 (goes by UDP), address hints (no pins)
// and resolvers. It reports false for a record that is of no use without: one
// that needs what was taken, or names another target, whose addresses would
// be pinned for the target and not for the name that the client sends.
func service(r *dnsmessage.SVCBResource, owner dnsmessage.Name) bool {
	if target := key(r.Target); target != "" && target != key(owner) {
		return false
	}
	mandatory, _ := r.GetParam(dnsmessage.SVCParamMandatory)
	for _, k := range []dnsmessage.SVCParamKey{
		dnsmessage.SVCParamECH, dnsmessage.SVCParamIPv4Hint, dnsmessage.SVCParamIPv6Hint,
		dnsmessage.SVCParamDOHPath, dnsmessage.SVCParamOHTTP,
	} {
		if r.DeleteParam(k) && needs(mandatory, k) {
			return false
		}
	}
	alpn, ok := r.GetParam(dnsmessage.SVCParamALPN)
	if !ok {
		return true
	}
	kept, ok := withoutH3(alpn)
	switch {
	case !ok:
		return false
	case len(kept) > 0:
		r.SetParam(dnsmessage.SVCParamALPN, kept)
		return true
	}
	// Only h3 was left: the record speaks of nothing but the default, if at
	// all, RFC 9460 §7.1.1.
	r.DeleteParam(dnsmessage.SVCParamALPN)
	return !needs(mandatory, dnsmessage.SVCParamALPN) && !r.DeleteParam(dnsmessage.SVCParamNoDefaultALPN)
}

// needs reports whether key is in the list of mandatory keys.
func needs(mandatory []byte, key dnsmessage.SVCParamKey) bool {
	for ; len(mandatory) >= 2; mandatory = mandatory[2:] {
		if dnsmessage.SVCParamKey(binary.BigEndian.Uint16(mandatory)) == key {
			return true
		}
	}
	return false
}

// withoutH3 filters a list of protocol names, each behind its length. It
// reports false if the list is malformed.
func withoutH3(alpn []byte) ([]byte, bool) {
	var kept []byte
	for len(alpn) > 0 {
		n := 1 + int(alpn[0])
		if n > len(alpn) || n == 1 {
			return nil, false
		}
		if id := string(alpn[1:n]); id != "h3" && !strings.HasPrefix(id, "h3-") && id != "hq" && !strings.HasPrefix(id, "hq-") && id != "doq" {
			kept = append(kept, alpn[:n]...)
		}
		alpn = alpn[n:]
	}
	return kept, true
}

func address(rr dnsmessage.Resource) bool {
	return rr.Header.Type == dnsmessage.TypeA || rr.Header.Type == dnsmessage.TypeAAAA
}

func countAddresses(list []dnsmessage.Resource) (n int) {
	for _, rr := range list {
		if address(rr) {
			n++
		}
	}
	return n
}

// unsigned removes signatures, which no longer fit.
func unsigned(list []dnsmessage.Resource) []dnsmessage.Resource {
	kept := list[:0]
	for _, rr := range list {
		if rr.Header.Type != typeRRSIG {
			kept = append(kept, rr)
		}
	}
	return kept
}

// restoreCase writes the guest's spelling wherever the name asked for stands.
func restoreCase(q *query, list []dnsmessage.Resource) {
	for n := range list {
		if key(list[n].Header.Name) == q.text {
			list[n].Header.Name = q.Name
		}
	}
}
