package proxy

import (
	"net/http"

	"github.com/cutoutdev/cutout/internal/coding"
	"github.com/cutoutdev/cutout/internal/rewrite"
)

// A Scrub says how what a host answers is searched for values.
type Scrub uint8

// The modes of --scrub.
const (
	ScrubOn  Scrub = iota // what cannot be searched is withheld
	ScrubLax              // what cannot be searched is passed on
	ScrubOff              // nothing is searched
)

// scrubMode is how the answer to the request is searched. A host of a secret
// is searched unless a rule says otherwise, also if it only may be one.
func (q *request) scrubMode() Scrub {
	switch {
	case !q.bound && !q.scrubAlways && !q.cfg.ScrubAll:
		return ScrubOff
	case q.cfg.Scrub == nil, !q.facts.TLS && !q.facts.Pinned: // whose host is then the guest's word alone
		return ScrubOn
	}
	return q.cfg.Scrub(q.host())
}

// searched reports whether the answer is searched for values.
func (q *request) searched() bool { return q.mode != ScrubOff }

// guarded reports whether nothing may pass that cannot be followed, such as
// another protocol: the host is a secret's, or may be.
func (q *request) guarded() bool { return q.bound || q.scrubAlways || q.searched() }

// scrubber is what searches the answer; nil if it is not searched.
func (q *request) scrubber() *rewrite.Scrubber {
	if !q.searched() {
		return nil
	}
	return q.rules.scrubber
}

// scannable asks for an answer in which values can be found: in codings that
// can be decoded.
func (q *request) scannable(h http.Header) {
	if fields, ok := h["Accept-Encoding"]; ok {
		h["Accept-Encoding"] = coding.Accept(fields)
	}
	if _, ok := h["Grpc-Accept-Encoding"]; ok {
		// One message can be decoded, but is then held whole.
		h["Grpc-Accept-Encoding"] = []string{"identity"}
	}
	if q.scrubber() != nil {
		q.widen(h)
	}
}
