package rewrite

import (
	"errors"

	"github.com/cutoutdev/cutout/internal/secret"
)

// ErrAcross is returned for a value that runs over the end of a record after
// its first bytes have been passed on.
var ErrAcross = errors.New("a value stands across records")

// unlikely is from how many bytes on the beginning of a value is held back
// over the end of a record: fewer end a record by chance often enough to
// delay a conversation, and give nothing away.
const unlikely = 4

// An Overwriter overwrites values in a stream of records, in place. It is for
// framings that the guest may have had a part in: what the boundary takes for
// two records may be one text, so a value is found across them too.
type Overwriter struct {
	s     *Scrubber
	hit   func(*secret.Secret)
	text  []byte // is not decided
	given int    // bytes of text that were passed on all the same
}

// Overwriter returns an Overwriter that calls hit for each value.
func (s *Scrubber) Overwriter(hit func(*secret.Secret)) *Overwriter {
	return &Overwriter{s: s, hit: hit}
}

// Append takes the next bytes of the stream and appends to dst what can be
// passed on. end says that they end a record, final that they end the stream.
// It fails with [ErrAcross], and when the store is closed; nothing of p may
// then be passed on.
func (o *Overwriter) Append(dst, p []byte, end, final bool) ([]byte, error) {
	o.text = append(o.text, p...)
	at := 0
	for {
		h, safe, ok, err := o.s.next(o.text[at:], final)
		switch {
		case err != nil:
			clear(o.text)
			return dst, err
		case !ok:
			return o.pass(dst, at+safe, end || final), nil
		case at+h.Start < o.given:
			clear(o.text)
			return dst, ErrAcross
		}
		o.s.overwrite(o.text[at+h.Start:at+h.End], h)
		at += h.End
		o.hit(o.s.needles.Form(h.ID).Secret)
	}
}

// pass appends what is new of text[:safe], or of all of it at the end of a
// record, and keeps the rest.
func (o *Overwriter) pass(dst []byte, safe int, end bool) []byte {
	upto, given := safe, max(o.given-safe, 0)
	if left := len(o.text) - safe; end && left < unlikely {
		upto, given = len(o.text), left
	}
	if upto > o.given {
		dst = append(dst, o.text[o.given:upto]...)
	}
	n := copy(o.text, o.text[safe:])
	clear(o.text[n:])
	o.text, o.given = o.text[:n], given
	return dst
}

// Bytes overwrites the values in b, in place, and returns how many there
// were. When the store is closed nothing of b is left.
func (s *Scrubber) Bytes(b []byte) (hits int) {
	o := s.Overwriter(func(*secret.Secret) { hits++ })
	clean, err := o.Append(nil, b, true, true)
	if err != nil {
		clear(b)
		return 1
	}
	copy(b, clean)
	return hits
}
