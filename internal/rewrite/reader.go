package rewrite

import (
	"io"

	"github.com/cutoutdev/cutout/internal/secret"
)

// Reader carries r unchanged and calls found for each placeholder in it, in
// order, at the latest in the Read that returns its last byte. However r is
// split, found is called alike. Nothing is held back; at most the longest
// placeholder is remembered.
func (f *Finder) Reader(r io.Reader, found func(*secret.Secret)) io.Reader {
	if len(f.secrets) == 0 {
		return r
	}
	return &findReader{f: f, r: r, found: found}
}

type findReader struct {
	f     *Finder
	r     io.Reader
	found func(*secret.Secret)
	carry []byte // end of what was read, which may begin a placeholder
}

func (r *findReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.scan(p[:n], err == io.EOF)
	return n, err
}

// scan looks at the next bytes of the stream.
func (r *findReader) scan(p []byte, final bool) {
	m := r.f.exact
	for len(r.carry) > 0 {
		// As many bytes as decide about all that began in the carry.
		held := len(r.carry)
		n := min(len(p), m.Longest())
		r.carry = append(r.carry, p[:n]...)
		h, done, ok := m.Next(r.carry, final && n == len(p))
		if ok {
			r.found(r.f.secrets[h.ID])
			done = h.End
		}
		switch {
		case done >= held:
			r.carry, p = r.carry[:0], p[done-held:]
		case ok:
			r.carry = append(r.carry[:0], r.carry[done:held]...)
		default: // all of p is in the carry
			r.carry = append(r.carry[:0], r.carry[done:]...)
			return
		}
	}
	for {
		h, done, ok := m.Next(p, final)
		if !ok {
			r.carry = append(r.carry[:0], p[done:]...)
			return
		}
		r.found(r.f.secrets[h.ID])
		p = p[h.End:]
	}
}
