package proxy

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/cutoutdev/cutout/internal/coding"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// A bodyPlan is what the secrets say about a request's body before any of it
// is read.
type bodyPlan struct {
	swap   []*secret.Secret // all gates hold and some of the body is a surface
	never  policy.Reason    // why those are refused all the same
	blocks bool             // a placeholder may make the body refused
	hold   bool             // all of it is searched before the head goes up
	coded  []string         // the codings that it is in
}

// swaps reports whether values may be written into the body.
func (p bodyPlan) swaps() bool { return len(p.swap) > 0 && p.never == policy.None }

// decide is the decision about one secret in the request.
func (q *request) decide(s *secret.Secret) policy.Decision { return policy.Decide(q.facts, s) }

// planBody decides about the body of the request.
func (q *request) planBody() bodyPlan {
	p := bodyPlan{coded: coding.Parse(q.in.Header["Content-Encoding"])}
	for _, s := range q.rules.set.All() {
		v := q.violationOf(s)
		if q.decide(s).Substitute {
			if len(s.Allowed().Body) == 0 || s.Value.IsZero() {
				continue
			}
			p.swap = append(p.swap, s)
		} else if v.Body(q.host()) == secret.Passthrough {
			continue
		} else {
			p.blocks = true
		}
		p.hold = p.hold || v.Hold
	}
	switch m := q.in.Method; {
	case strings.EqualFold(m, "TRACE"), strings.EqualFold(m, "TRACK"):
		p.never = policy.TraceMethod
	case signedBody(q.in.Header, q.in.Trailer):
		p.never = policy.BodyIsSigned
	}
	return p
}

// carry makes the body of out. A refusal that it returns was found before
// anything went up.
func (q *request) carry(out *http.Request) *refusal {
	b := &body{q: q, plan: q.planBody(), end: make(chan struct{})}
	q.body, out.Body = b, b
	if q.in.ContentLength < 0 {
		b.trailer = make(http.Header)
		for name := range q.in.Trailer {
			b.trailer[name] = nil // announced
		}
		out.Trailer = b.trailer
	}
	err := b.prepare(out)
	if err == nil {
		return nil
	}
	b.once.Do(func() { close(b.end) }) // nobody reads
	if no := bodyRefusal(err); no != nil {
		return no
	}
	return q.unread(err)
}

// prepare makes what goes up. Nothing is read of the guest unless the length
// must be known or the body is to be searched first.
func (b *body) prepare(out *http.Request) error {
	src, err := b.source(out)
	if err != nil {
		return err
	}
	measured := b.plan.swaps() && b.q.in.ContentLength >= 0
	if !measured && !b.plan.hold {
		return b.stream(out, src)
	}
	kept, err := b.q.spool(src)
	if err != nil {
		return err
	}
	b.kept = true
	b.release = append(b.release, kept.Close)
	length, changed, err := b.measure(kept)
	if err != nil {
		return err
	}
	if measured {
		out.ContentLength = length
		if length == 0 {
			out.Body = http.NoBody
			b.ended(io.EOF)
		}
	}
	if !changed {
		b.out = kept.Reader()
		return nil
	}
	if err := b.stream(out, kept.Reader()); err != nil {
		return err
	}
	for _, s := range b.due {
		if err := b.record(s); err != nil {
			return err
		}
	}
	return nil
}

// source returns the bytes to work on: decoded, if they are to be rewritten,
// and searched, if they are not.
func (b *body) source(out *http.Request) (io.Reader, error) {
	if !b.plan.swaps() {
		return b.searched(b.q.in.Body)
	}
	if len(b.plan.coded) == 0 {
		return b.q.in.Body, nil
	}
	d, err := b.decoded(b.q.in.Body)
	if err != nil {
		return nil, err
	}
	delete(out.Header, "Content-Encoding")
	return d, nil
}

// stream lets src go up as it comes, with markers if values may be written.
func (b *body) stream(out *http.Request, src io.Reader) error {
	if !b.plan.swaps() {
		b.out = src
		return nil
	}
	if _, err := b.q.upstream(); err != nil {
		return undialled(err)
	}
	if b.q.seal == nil { // as in substitute
		return refused(policy.PlainHTTP)
	}
	seal, err := b.q.seal.Body()
	if err != nil {
		panic(http.ErrAbortHandler) // the upstream has gone
	}
	name, value := seal.Field()
	out.Header[name] = []string{value}
	b.seal, b.out = seal, seal.Reader(b.rewritten(src, seal.Register, b.record))
	return nil
}

// measure reads all that is kept as it will be written, and returns its
// length and whether a value will be in it. After it b.due is known.
func (b *body) measure(kept *spool) (length int64, changed bool, err error) {
	if !b.plan.swaps() {
		return kept.size, false, nil // searched as it was read
	}
	r := b.rewritten(kept.Reader(), func(parts []secret.Part, enc secret.Encoding) (string, error) {
		changed = true
		n, err := b.q.cfg.Store.EncodedLen(parts, enc)
		return strings.Repeat("x", n), err
	}, func(s *secret.Secret) error { b.due = append(b.due, s); return nil })
	length, err = io.Copy(io.Discard, r)
	return length, changed, err
}

// unread is the answer to a body that the guest did not send whole.
func (q *request) unread(err error) *refusal {
	if no := framingRefusal(err); no != nil {
		return no
	}
	if q.in.Context().Err() == nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		no := refused(policy.MalformedRequest)
		no.detail = "the body did not come"
		return no
	}
	panic(http.ErrAbortHandler)
}

func (p bodyPlan) admits(s *secret.Secret) bool { return slices.Contains(p.swap, s) }
