package secret

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/cutoutdev/cutout/internal/match"
)

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
// MinValue, which turn up by chance. A secret that may go nowhere any more
// may be among them: it is searched for like any other. What they take of the
// store, for which [Room] leaves room twice, is given back by Close or when
// the Needles are garbage.
func NewNeedles(secrets []*Secret) (*Needles, error) {
	n := &Needles{}
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
		forms, err := formsOf(s)
		if err != nil {
			return nil, fmt.Errorf("prepare search for values: %w", err)
		}
		n.forms = append(n.forms, forms...)
	}
	if len(n.forms) == 0 {
		return n, nil
	}
	if err := n.build(); err != nil {
		return nil, fmt.Errorf("prepare search for values: %w", err)
	}
	return n, nil
}

func (n *Needles) build() error {
	list := make([]match.Needle, len(n.forms))
	for i, f := range n.forms {
		list[i] = match.Needle{Len: f.Len, Wrap: f.Wrap()}
	}
	size := match.SizeOf(list)
	off, _, err := n.st.alloc(size)
	if err != nil {
		return err
	}
	n.off = off
	if err := n.index(list, size); err != nil {
		n.st.release(off)
		return err
	}
	n.cleanup = runtime.AddCleanup(n, n.st.release, off)
	return nil
}

func (n *Needles) index(list []match.Needle, size int) error {
	st := n.st
	st.mu.RLock()
	defer st.mu.RUnlock()
	if st.closed {
		return ErrClosed
	}
	for _, f := range n.forms {
		if st.lookup(f.Secret.Value) == nil {
			return errReleased
		}
	}
	n.matcher = match.Build(st.mem.bytes[n.off:n.off+size:n.off+size], list, func(i int, dst []byte) {
		n.forms[i].write(dst, n.forms[i].Secret.Value.bytes())
	})
	return nil
}

// Forms returns all forms; a hit's ID is an index. Callers must not change
// the slice.
func (n *Needles) Forms() []Form { return n.forms }

// Form returns the form with a hit's ID.
func (n *Needles) Form(id int) Form { return n.forms[id] }

// Longest returns the length of the longest hit.
func (n *Needles) Longest() int {
	if n.matcher == nil {
		return 0
	}
	return n.matcher.Longest()
}

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
