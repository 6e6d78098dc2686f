package secret

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/cutoutdev/cutout/internal/match"
)

// A Form is one way in which a value may stand in what an upstream sends.
type Form struct {
	Secret   *Secret
	Encoding Encoding
	// For Base64: how many bytes of the encoded group precede the value, 0 to
	// 2, and whether the alphabet is the one of URLs. The form has only those
	// letters that the value alone determines; one letter at either end that
	// it shares with its neighbours is not part of it.
	Shift int
	URL   bool
	Len   int // in bytes
}

// Needles finds the values of a set of secrets, in every [Form], in what an
// upstream sends or a user hands over. The values are compared where they
// lie; all that is derived from them is in the store too. It is immutable
// and may be used from several goroutines at once.
type Needles struct {
	st      *Store
	forms   []Form
	matcher *match.Matcher
	cleanup runtime.Cleanup
	off     int
	closed  bool // written with st.mu held
}

// NewNeedles prepares the search for the values of secrets, which must be of
// one store. Secrets without value are left out, and values shorter than
// MinValue, which turn up by chance. What it takes of the store
// is given back by Close or when the Needles are garbage.
func NewNeedles(secrets []*Secret) (*Needles, error) {
	n := &Needles{}
	var values []Value
	for _, s := range secrets {
		v := s.Value
		if v.IsZero() {
			continue
		}
		if n.st != nil && v.store != n.st {
			return nil, errors.New("secrets are of different stores")
		}
		n.st = v.store
		if v.n < MinValue {
			continue
		}
		for _, f := range formsOf(s) {
			n.forms = append(n.forms, f)
			values = append(values, v)
		}
	}
	if len(n.forms) == 0 {
		return n, nil
	}
	if err := n.build(values); err != nil {
		return nil, fmt.Errorf("prepare search for values: %w", err)
	}
	return n, nil
}

func formsOf(s *Secret) []Form {
	size := s.Value.n
	forms := []Form{{Secret: s, Len: size}}
	for shift := range 3 {
		from, to := core(shift, size)
		for _, url := range []bool{false, true} {
			forms = append(forms, Form{Secret: s, Encoding: Base64, Shift: shift, URL: url, Len: to - from})
		}
	}
	return forms
}

// core returns which letters of the Base64 encoding of shift unknown bytes
// and then n known ones the known ones alone determine. Letter i encodes the
// bits from 6i to 6i+6.
func core(shift, n int) (from, to int) {
	return (8*shift + 5) / 6, 8 * (shift + n) / 6
}

func (n *Needles) build(values []Value) error {
	lens := make([]int, len(n.forms))
	for i, f := range n.forms {
		lens[i] = f.Len
	}
	size := match.Size(lens)
	off, _, err := n.st.alloc(size)
	if err != nil {
		return err
	}
	n.off = off
	if err := n.index(values, lens, size); err != nil {
		n.st.release(off)
		return err
	}
	n.cleanup = runtime.AddCleanup(n, n.st.release, off)
	return nil
}

func (n *Needles) index(values []Value, lens []int, size int) error {
	st := n.st
	st.mu.RLock()
	defer st.mu.RUnlock()
	if st.closed {
		return ErrClosed
	}
	for _, v := range values {
		if st.lookup(v) == nil {
			return errReleased
		}
	}
	n.matcher = match.New(st.mem.bytes[n.off:n.off+size:n.off+size], lens, func(i int, dst []byte) {
		n.forms[i].write(dst, values[i].bytes())
	})
	return nil
}

// write puts the form of value, which lies in the region, into dst, which
// does too.
func (f Form) write(dst, value []byte) {
	if f.Encoding == Raw {
		copy(dst, value)
		return
	}
	letters := stdLetters
	if f.URL {
		letters = urlLetters
	}
	from, _ := core(f.Shift, len(value))
	for i := range dst {
		bit := 6*(from+i) - 8*f.Shift // in value
		w := uint(value[bit/8]) << 8
		if bit/8+1 < len(value) {
			w |= uint(value[bit/8+1])
		}
		dst[i] = letters[w>>(10-bit%8)&0x3f]
	}
}

// Len returns the length of the longest form, 0 if there is none.
func (n *Needles) Len() int {
	if n.matcher == nil {
		return 0
	}
	return n.matcher.Longest()
}

// Forms returns all forms; a hit's ID is an index. Callers must not change
// the slice.
func (n *Needles) Forms() []Form { return n.forms }

// Of returns what text looks like in the form: what would be found if text
// were the value.
func (f Form) Of(text string) string {
	n := len(text)
	if f.Encoding == Base64 {
		from, to := core(f.Shift, len(text))
		n = to - from
	}
	b := make([]byte, n)
	f.write(b, []byte(text))
	return string(b)
}

// Form returns the form with a hit's ID.
func (n *Needles) Form(id int) Form { return n.forms[id] }

// Next searches text as [match.Matcher.Next] does. It fails with [ErrClosed]
// when the store or n is closed: then nothing is known of text, and it must not
// reach the guest.
func (n *Needles) Next(text []byte, final bool) (h match.Hit, safe int, ok bool, err error) {
	if n.matcher == nil {
		return match.Hit{}, len(text), false, nil
	}
	n.st.mu.RLock()
	defer n.st.mu.RUnlock()
	if n.st.closed || n.closed {
		return match.Hit{}, 0, false, ErrClosed
	}
	h, safe, ok = n.matcher.Next(text, final)
	runtime.KeepAlive(n)
	return h, safe, ok, nil
}

// Folded returns the secret whose value stands in text, in any form, if case
// is not regarded; nil if there is none. It is for short text whose case may
// have been changed on the way. It fails as Next does.
func (n *Needles) Folded(text string) (*Secret, error) {
	if n.matcher == nil {
		return nil, nil
	}
	n.st.mu.RLock()
	defer n.st.mu.RUnlock()
	if n.st.closed || n.closed {
		return nil, ErrClosed
	}
	for i, f := range n.forms {
		for rest := text; len(rest) >= f.Len; rest = rest[1:] {
			if equalFold(n.matcher.Needle(i), rest) {
				return f.Secret, nil
			}
		}
	}
	return nil, nil
}

// equalFold reports whether text begins with needle but for the case of ASCII
// letters.
func equalFold(needle []byte, text string) bool {
	for i, c := range needle {
		if fold(c) != fold(text[i]) {
			return false
		}
	}
	return true
}

func fold(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// Close gives the memory back. Next fails from then on: a search that is
// under way elsewhere must not end as if there were no value.
func (n *Needles) Close() {
	if n.matcher == nil {
		return
	}
	n.st.mu.Lock()
	defer n.st.mu.Unlock()
	if !n.closed {
		n.closed = true
		n.cleanup.Stop()
		n.st.unref(n.off)
	}
}

// Format prints nothing of the values.
func (n *Needles) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "[%d needles]", len(n.forms)) }
