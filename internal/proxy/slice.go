package proxy

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/cutoutdev/cutout/internal/policy"
)

// A slice is what a Range asks for, RFC 9110 §14.1.2: the bytes from first to
// last, or, if first is negative, as many at the end.
type slice struct{ first, last int64 }

// toEnd is the last byte of a slice that ends with the whole.
const toEnd = math.MaxInt64

// sliceFields carry a Range; the first of them counts. Azure's storage has one
// of its own.
var sliceFields = []string{"X-Ms-Range", "Range"}

// widen asks for what a value may have on both sides of the slice that h asks
// for, so that one at its ends is found whole. A slice of a coded answer could
// not be searched. Where several are asked for, or anything else that is not
// understood, the whole is asked for, which RFC 9110 §14.2 always permits. On
// every request: a slice may hold what an earlier one has stored.
func (q *request) widen(h http.Header) {
	for _, field := range sliceFields {
		values := h[field]
		delete(h, field)
		if s, ok := parseSlice(values); ok && q.slice == nil && q.in.Method == http.MethodGet {
			q.slice = &s
			h[field] = []string{s.wider(q.margin())}
			h["Accept-Encoding"] = []string{"identity"}
		}
	}
	if q.slice == nil {
		delete(h, "If-Range")
	}
}

// margin is how far a value may reach over the end of a slice.
func (q *request) margin() int64 { return int64(q.rules.scrubber.Longest()) }

// parseSlice reads the fields of a Range. False: not one range of bytes.
func parseSlice(fields []string) (slice, bool) {
	if len(fields) != 1 {
		return slice{}, false
	}
	unit, set, _ := strings.Cut(fields[0], "=")
	from, to, ok := strings.Cut(strings.Trim(set, " \t"), "-")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return slice{}, false
	}
	s := slice{last: toEnd}
	if from == "" {
		s.first, ok = digits(to)
		return slice{first: -s.first - 1, last: toEnd}, ok
	}
	if s.first, ok = digits(from); ok && to != "" {
		s.last, ok = digits(to)
	}
	return s, ok && s.first <= s.last
}

// digits reads a number that leaves room for sums.
func digits(s string) (int64, bool) {
	n, err := strconv.ParseUint(s, 10, 62)
	return int64(n), err == nil
}

// suffix returns how many bytes at the end are asked for.
func (s slice) suffix() (n int64, ok bool) { return -s.first - 1, s.first < 0 }

// wider is the Range that asks for margin more bytes at both ends.
func (s slice) wider(margin int64) string {
	if n, ok := s.suffix(); ok {
		return fmt.Sprintf("bytes=-%d", n+margin)
	}
	from := fmt.Sprintf("bytes=%d-", max(0, s.first-margin))
	if s.last == toEnd {
		return from
	}
	return from + strconv.FormatInt(s.last+margin, 10)
}

// of returns the slice of a whole of size bytes, -1 if that is not known.
func (s slice) of(size int64) (slice, bool) {
	if n, ok := s.suffix(); ok {
		return slice{max(0, size-n), size - 1}, size >= 0
	}
	if size >= 0 {
		s.last = min(s.last, size-1)
	}
	return s, true
}

// A contentRange is the field of that name, RFC 9110 §14.4. size is -1 if it
// does not say.
type contentRange struct {
	slice
	size int64
}

func parseContentRange(fields []string) (contentRange, bool) {
	c := contentRange{size: -1}
	if len(fields) != 1 {
		return c, false
	}
	unit, rest, _ := strings.Cut(fields[0], " ")
	span, size, _ := strings.Cut(rest, "/")
	from, to, _ := strings.Cut(span, "-")
	var ok [3]bool
	c.first, ok[0] = digits(from)
	c.last, ok[1] = digits(to)
	if ok[2] = size == "*"; !ok[2] {
		c.size, ok[2] = digits(size)
	}
	valid := c.first <= c.last && (c.size < 0 || c.last < c.size)
	return c, strings.EqualFold(unit, "bytes") && ok == [3]bool{true, true, true} && valid
}

func (c contentRange) String() string {
	if c.size < 0 {
		return fmt.Sprintf("bytes %d-%d/*", c.first, c.last)
	}
	return fmt.Sprintf("bytes %d-%d/%d", c.first, c.last, c.size)
}

// A cut is what of a slice that came wider than asked for goes to the guest.
type cut struct {
	got        int64 // bytes that come
	skip, keep int64
	rest       int64 // read of what follows
}

// cutSlice makes the answer the one to the guest's own Range. What lies within
// the margin of an end that is not one of the whole cannot be searched.
func (r *response) cutSlice() *refusal {
	if r.slice == nil || r.resp.Header.Get("Content-Encoding") != "" || strings.HasPrefix(strings.ToLower(r.resp.Header.Get("Content-Type")), "multipart/") {
		return r.unscannable("a slice that was not asked for")
	}
	got, ok := parseContentRange(r.resp.Header["Content-Range"])
	length := got.last - got.first + 1
	if !ok || r.resp.ContentLength >= 0 && r.resp.ContentLength != length {
		return r.unscannable("a slice of unknown place")
	}
	want, ok := r.slice.of(got.size)
	if ok && got.size >= 0 && want.first >= got.size {
		r.unsatisfiable(got.size)
		return nil
	}
	clean := got.slice
	if clean.first > 0 {
		clean.first += r.margin()
	}
	if clean.last != got.size-1 {
		clean.last -= r.margin()
	}
	want.last = min(want.last, clean.last)
	if !ok || want.first < clean.first || want.first > want.last {
		return r.unscannable("another slice than was asked for")
	}
	r.fixed = true
	r.cut = &cut{got: length, skip: want.first - got.first, keep: want.last - want.first + 1, rest: 2 * r.margin()}
	got.slice = want
	r.resp.ContentLength = r.cut.keep
	r.resp.Header["Content-Range"] = []string{got.String()}
	r.resp.Header["Content-Length"] = []string{strconv.FormatInt(r.cut.keep, 10)}
	dropDigests(r.resp.Header, contentDigests)
	return nil
}

// unsatisfiable makes the answer the one to a Range that begins behind the
// end, RFC 9110 §15.5.17: what came lies in the margin.
func (r *response) unsatisfiable(size int64) {
	io.Copy(io.Discard, io.LimitReader(r.resp.Body, 2*r.margin())) // else its connection ends
	r.resp.StatusCode, r.resp.Body, r.resp.ContentLength = http.StatusRequestedRangeNotSatisfiable, http.NoBody, 0
	dropDigests(r.resp.Header, contentDigests)
	delete(r.resp.Header, "Content-Type")
	r.resp.Header["Content-Range"] = []string{fmt.Sprintf("bytes */%d", size)}
	r.resp.Header["Content-Length"] = []string{"0"}
}

// An exactReader fails unless r has the length that was announced: a value may
// reach over an end that is none.
type exactReader struct {
	r    io.Reader
	left int64
}

func (e *exactReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.left -= int64(n)
	switch {
	case e.left < 0:
		no := refused(policy.Unscannable)
		no.detail = "a slice longer than it says"
		return 0, no
	case err == io.EOF && e.left > 0:
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

// A cutReader is what a cut leaves of r. It reads r to its end, if that is
// near, so that the upstream's connection can be used again.
type cutReader struct {
	r io.Reader
	cut
}

func (c *cutReader) Read(p []byte) (int, error) {
	if c.skip > 0 {
		n, err := io.CopyN(io.Discard, c.r, c.skip)
		if c.skip -= n; err != nil {
			return 0, unexpected(err)
		}
	}
	if c.keep == 0 {
		io.CopyN(io.Discard, c.r, c.rest) // the guest has what it asked for
		return 0, io.EOF
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.keep)])
	if c.keep -= int64(n); c.keep == 0 {
		err = nil
	}
	return n, unexpected(err)
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
