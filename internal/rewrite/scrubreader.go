package rewrite

import (
	"io"

	"github.com/cutoutdev/cutout/internal/secret"
)

// Reader returns r with every value replaced, and calls hit for each. With
// keepLength a hit is overwritten by the placeholder cut or padded to its
// length, so that lengths announced before stay right; else the placeholder
// is put in whole, except into a hit with line breaks, whose lines keep their
// lengths. However r is split, the result is the same.
//
// Only the end of what was read that could begin a hit is held back until
// more comes; all else is returned at once. If r fails, what was held back
// is dropped. When the store is closed the Reader fails.
func (s *Scrubber) Reader(r io.Reader, keepLength bool, hit func(*secret.Secret)) io.Reader {
	return &scrubReader{s: s, r: r, keep: keepLength, hit: hit}
}

// minRead is the least room worth a read; with less the reader uses a buffer
// of its own.
const minRead = 512

type scrubReader struct {
	s    *Scrubber
	r    io.Reader
	keep bool
	hit  func(*secret.Secret)

	carry []byte // was read, may begin a hit
	out   []byte // is to be returned
	own   []byte // buffer for small reads
	built []byte // buffer for text with hits, if lengths change
	err   error  // to be returned after out
}

func (r *scrubReader) Read(p []byte) (int, error) {
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
		buf, direct := p, true
		if len(buf) < len(r.carry)+minRead {
			buf, direct = r.room(len(r.carry)+8*minRead), false
		}
		held := copy(buf, r.carry)
		n, err := r.r.Read(buf[held:])
		if err != nil {
			r.err = err
		} else if n == 0 {
			if empty++; empty > 100 {
				r.err = io.ErrNoProgress
			}
		}
		text := r.scrub(buf[:held+n], err == io.EOF)
		if direct && len(text) > 0 && &text[0] == &p[0] {
			return len(text), nil
		}
		r.out = text
	}
}

// room returns a buffer of n bytes.
func (r *scrubReader) room(n int) []byte {
	if cap(r.own) < n {
		clear(r.own)
		r.own = make([]byte, n)
	}
	return r.own[:n]
}

// scrub returns what of text can be passed on, with hits replaced, and keeps
// the rest in the carry. The result lies at the beginning of text or in
// r.built. No value is left in text.
func (r *scrubReader) scrub(text []byte, final bool) []byte {
	r.built = r.built[:0]
	moved := false // the result is in r.built
	from, at := 0, 0
	for {
		h, safe, ok, err := r.s.next(text[at:], final)
		if err != nil {
			clear(text)
			clear(r.built)
			r.carry, r.err = nil, err
			return nil
		}
		if !ok {
			at += safe
			break
		}
		start, end := at+h.Start, at+h.End
		if r.keep || r.s.wrapped(h) {
			r.s.overwrite(text[start:end], h)
		} else {
			moved = true
			r.built = append(append(r.built, text[from:start]...), r.s.whole[h.ID]...)
			clear(text[start:end])
			from = end
		}
		at = end
		if r.hit != nil {
			r.hit(r.s.needles.Form(h.ID).Secret)
		}
	}
	r.carry = append(r.carry[:0], text[at:]...)
	clear(text[at:])
	if !moved {
		return text[:at]
	}
	r.built = append(r.built, text[from:at]...)
	return r.built
}
