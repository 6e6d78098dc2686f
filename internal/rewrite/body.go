package rewrite

import (
	"errors"
	"io"

	"github.com/cutoutdev/cutout/internal/secret"
)

// MaxBodyOccurrences is how many placeholders of one body become values. A
// form or document names a credential once or twice; the rest is room for
// batches. More would only multiply the value.
const MaxBodyOccurrences = 64

// A Body says what becomes of the placeholders in a request body.
type Body struct {
	// ContentType is the field of that name; it decides on the syntax.
	ContentType string
	// Swap reports whether placeholders of the secret become values where
	// one of its [secret.BodyPart] is.
	Swap func(*secret.Secret) bool
	// Seal returns the marker for the value. Nil: the body stays as it is,
	// and Found is told what would be swapped.
	Seal sealFunc
	// Found is told of every placeholder, before it is passed on.
	Found func(o Occurrence, swapped bool) error
	// SameLength says that nothing may grow or shrink, whatever the type.
	SameLength bool
}

// A Refusal is why a body cannot be passed on.
type Refusal struct {
	Reason Fault
	Secret *secret.Secret
}

// A Fault is the reason of a [Refusal], in the words of policy.Reason.
type Fault string

// The faults.
const (
	NeedsEqualLength Fault = "needs_equal_length" // the syntax holds lengths
	Unsafe           Fault = "unsafe"             // it would change what surrounds it
	TooMany          Fault = "too_many"           // more than may be
)

func (r *Refusal) Error() string {
	return "placeholder of " + r.Secret.Name + ": " + string(r.Reason)
}

// Body returns the body r with markers in the place of placeholders: as they
// are written or in the escapes of the body's syntax, the value encoded for
// where it lands. Bodies whose syntax may hold lengths take only a swap of
// equal length, DESIGN §4.
//
// However r is split, the result is the same; only what could begin a
// placeholder or an escape is held back until more comes. An error of b, or
// a [Refusal], ends the reader before the placeholder.
func (f *Finder) Body(r io.Reader, b Body) io.Reader {
	if len(f.secrets) == 0 {
		return r
	}
	kind := kindOf(b.ContentType)
	w := &writer{f: f, b: b, media: kind.media, most: MaxBodyOccurrences}
	if kind.syntax == multipart {
		return &bodyReader{r: r, s: newSections(w, kind)}
	}
	t := newText(w, kind, b.SameLength)
	t.follow()
	return &bodyReader{r: r, s: t}
}

// A stage takes the next bytes of a text and appends to dst what is decided.
type stage interface {
	feed(dst, p []byte, final bool) ([]byte, error)
}

// bodyRead is how much is read at once: one TLS record, and small enough
// that all of it stays in the first cache.
const bodyRead = 16 << 10

type bodyReader struct {
	r     io.Reader
	s     stage
	in    []byte
	n     int    // of in that the last read took
	out   []byte // is to be returned
	built []byte // backs out
	err   error  // after out
}

func (r *bodyReader) Read(p []byte) (int, error) {
	for empty := 0; ; {
		switch {
		case len(r.out) > 0:
			n := copy(p, r.out)
			r.out = r.out[n:]
			return n, nil
		case r.err != nil:
			return 0, r.err
		case len(p) == 0:
			return 0, nil
		}
		if r.n == len(r.in) && r.n < bodyRead {
			r.in = make([]byte, max(minRead, 2*r.n)) // most messages are short
		}
		n, err := r.r.Read(r.in)
		r.n, r.err = n, err
		if n == 0 && err == nil {
			if empty++; empty > 100 {
				r.err = io.ErrNoProgress
			}
		}
		var fault error
		if r.built, fault = r.s.feed(r.built[:0], r.in[:n], err == io.EOF); fault != nil {
			r.err = fault
		}
		r.out = r.built
	}
}

// A writer is what all parts of a body share.
type writer struct {
	f        *Finder
	b        Body
	media    string // of the whole
	most     int    // of swaps
	anywhere bool   // all places are where Swap says
	swaps    int
}

// place appends what stands for the placeholder text, of s, to dst. covered
// says whether its place is a surface, exact that the length must stay.
func (w *writer) place(dst []byte, s *secret.Secret, text []byte, covered, exact bool, enc secret.Encoding) ([]byte, error) {
	o := Occurrence{Secret: s, Position: InBody}
	covered = covered && !s.Value.IsZero()
	if !covered || w.b.Seal == nil {
		if err := w.b.Found(o, covered); err != nil {
			return dst, err
		}
		return append(dst, text...), nil
	}
	if exact && s.Value.Len() != len(text) {
		return dst, &Refusal{NeedsEqualLength, s}
	}
	if w.swaps++; w.swaps > w.most {
		return dst, &Refusal{TooMany, s}
	}
	marker, err := w.b.Seal([]secret.Part{{Value: s.Value}}, enc)
	switch {
	case errors.Is(err, secret.ErrUnsafe), errors.Is(err, secret.ErrShort):
		return dst, &Refusal{Unsafe, s}
	case err != nil:
		return dst, err
	case exact && len(marker) != len(text):
		return dst, &Refusal{NeedsEqualLength, s}
	}
	if err := w.b.Found(o, true); err != nil {
		return dst, err
	}
	return append(dst, marker...), nil
}
