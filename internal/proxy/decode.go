package proxy

import (
	"errors"
	"io"
	"net/http"

	"golang.org/x/net/http/httpguts"

	"github.com/cutoutdev/cutout/internal/coding"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/rewrite"
)

// open makes the body one in which values can be found: it is decoded, and
// stays so, since a value beside the guest's own text in a compressed answer
// would show in its length. What cannot be searched is withheld whatever the
// request has carried: an earlier one may have stored a value.
//
// The entity tag stays as it is. What the guest gets is what a client gets
// that decodes for itself, and its If-Match must go on working.
func (r *response) open() *refusal {
	codings := coding.Parse(r.resp.Header["Content-Encoding"])
	if r.resp.StatusCode == http.StatusPartialContent && r.hasBody() {
		return r.cutSlice()
	}
	if len(codings) == 0 {
		r.fixed = keepsLength(r.resp.Header)
		return nil
	}
	plain, err := coding.NewReader(r.resp.Body, codings, coding.Limits{Budget: &r.held})
	if err != nil {
		if !r.hasBody() {
			return nil
		}
		return r.unscannable(coding.ErrUnknown.Error())
	}
	r.fixed = keepsLength(r.resp.Header)
	r.coded = &decodedBody{plain}
	if r.hasBody() {
		r.resp.Body, r.resp.ContentLength = r.coded, -1
	}
	delete(r.resp.Header, "Content-Encoding")
	delete(r.resp.Header, "Content-Length")
	dropDigests(r.resp.Header, answerDigests)
	return nil
}

// unscannable is what becomes of an answer that cannot be searched.
func (r *response) unscannable(detail string) *refusal {
	r.fixed = true
	if r.mode == ScrubLax {
		return nil
	}
	no := refused(policy.Unscannable)
	no.detail = detail
	return no
}

func (r *response) close() {
	if r.coded != nil {
		r.coded.Close()
	}
}

// keepsLength reports whether the length of a body may not change where a
// value is taken out: its syntax may hold lengths, or the guest may ask for
// the rest of it by the number of bytes that it has.
func keepsLength(h http.Header) bool {
	types := h["Content-Type"]
	return len(types) != 1 || !rewrite.Elastic(types[0]) || httpguts.HeaderValuesContainsToken(h["Accept-Ranges"], "bytes")
}

// A decodedBody is one that was coded. Its errors are refusals, unless the
// upstream's connection is at fault.
type decodedBody struct{ io.ReadCloser }

func (d *decodedBody) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	// Their text is not told: it may be the upstream's.
	for _, known := range []error{coding.ErrExpansion, coding.ErrDamaged, coding.ErrMemory} {
		if errors.Is(err, known) {
			no := refused(policy.Unscannable)
			no.detail = known.Error()
			return n, no
		}
	}
	return n, err
}
