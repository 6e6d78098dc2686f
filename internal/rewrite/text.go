package rewrite

import (
	"bytes"
	"sort"

	"github.com/cutoutdev/cutout/internal/secret"
)

// A text rewrites what is written in one syntax.
type text struct {
	w        *writer
	kind     kind
	field    string // of multipart/form-data that it is
	exact    bool   // nothing may change its length
	intro    byte   // begins an escape
	unescape unescapeFunc
	where    tracker // nil: nobody asks

	held  []byte // is not decided
	plain []byte // what is looked at without its escapes, if it has any
	runs  []run  // of plain
}

// A run says where plain bytes come from, up to the next run.
type run struct {
	plain, from int
	escape      bool // all of them from one escape
}

// A tracker follows the structure of a text, to tell where in it the next
// byte stands.
type tracker interface {
	write(p []byte)
	// in reports whether that is in part; sane, whether what was written
	// could be followed.
	in(part secret.BodyPart) (in, sane bool)
}

func newText(w *writer, k kind, exact bool) *text {
	t := &text{w: w, kind: k, exact: exact || k.syntax == opaque || k.syntax == encoded || k.syntax == multipart}
	t.intro, t.unescape = k.syntax.escapes()
	if k.syntax == xmlText {
		t.where = &xmlTracker{}
	}
	return t
}

// follow makes the text, which is a whole body, find what a secret's surface
// names in it. In a part of a body nothing is found: its type is the guest's
// word alone.
func (t *text) follow() {
	w := t.w
	if t.kind.syntax == jsonText && w.narrowed(func(p secret.BodyPart) bool { return p.Pointer != "" }) {
		t.where = &jsonTracker{}
	}
	if t.kind.syntax == formText && w.narrowed(func(p secret.BodyPart) bool { return p.Field != "" }) {
		t.where = &formTracker{}
	}
}

// narrowed reports whether some secret's bodies are.
func (w *writer) narrowed(how func(secret.BodyPart) bool) bool {
	for _, s := range w.f.secrets {
		for _, p := range s.Allowed().Body {
			if how(p) {
				return true
			}
		}
	}
	return false
}

func (t *text) feed(dst, p []byte, final bool) ([]byte, error) {
	if len(t.held) > 0 {
		t.held = append(t.held, p...)
		rest, dst, err := t.take(dst, t.held, final)
		t.held = t.held[:copy(t.held, rest)]
		return dst, err
	}
	rest, dst, err := t.take(dst, p, final)
	t.held = append(t.held, rest...)
	return dst, err
}

// take appends what is decided of in to dst and returns the rest.
func (t *text) take(dst, in []byte, final bool) (rest, out []byte, err error) {
	plain := in
	t.runs = t.runs[:0]
	if t.unescape != nil && bytes.IndexByte(in, t.intro) >= 0 {
		t.decode(in, final)
		plain = t.plain
	}
	from := 0 // in in
	for base := 0; ; {
		h, safe, ok := t.w.f.exact.Next(plain[base:], final)
		if !ok {
			end := t.place(base + safe)
			return in[end:], t.pass(dst, in[from:end]), nil
		}
		start, end := t.place(base+h.Start), t.place(base+h.End)
		dst = t.pass(dst, in[from:start])
		if dst, err = t.found(dst, t.w.f.secrets[h.ID], in[start:end]); err != nil {
			return nil, dst, err
		}
		base, from = base+h.End, end
	}
}

// pass appends p, which holds no placeholder.
func (t *text) pass(dst, p []byte) []byte {
	if t.where != nil {
		t.where.write(p)
	}
	return append(dst, p...)
}

func (t *text) found(dst []byte, s *secret.Secret, p []byte) ([]byte, error) {
	covered := false
	if t.w.b.Swap(s) {
		var sane bool
		if covered, sane = t.covered(s); !sane || covered && t.kind.syntax == encoded {
			return dst, &Refusal{Unsafe, s}
		}
	}
	enc := t.kind.syntax.encoding()
	if x, ok := t.where.(*xmlTracker); ok && covered {
		var fits bool
		if enc, fits = x.encoding(p); !fits {
			return dst, &Refusal{Unsafe, s}
		}
	}
	dst, err := t.w.place(dst, s, p, covered, t.exact, enc)
	if t.where != nil {
		t.where.write(p)
	}
	return dst, err
}

// covered reports whether the next byte is in a part of bodies where s may
// be written. It is not sane if that could not be found out.
func (t *text) covered(s *secret.Secret) (covered, sane bool) {
	if t.w.anywhere {
		return true, true
	}
	sane = true
	for _, p := range s.Allowed().Body {
		switch {
		case p == secret.BodyPart{}, p.Type != "" && p.Type == t.w.media, p.Field != "" && p.Field == t.field:
			return true, true
		case p.Type == "" && t.where != nil:
			in, ok := t.where.in(p)
			if in && ok {
				return true, true
			}
			sane = sane && ok
		}
	}
	return false, sane
}

// place returns where the byte i of what was looked at comes from.
func (t *text) place(i int) int {
	n := sort.Search(len(t.runs), func(n int) bool { return t.runs[n].plain > i })
	if n == 0 {
		return i
	}
	r := t.runs[n-1]
	if r.escape {
		return r.from
	}
	return r.from + i - r.plain
}

// decode makes plain and runs of in.
func (t *text) decode(in []byte, final bool) {
	plain, runs := t.plain[:0], t.runs[:0] // in registers while they grow
	for i := 0; i < len(in); {
		runs = append(runs, run{len(plain), i, in[i] == t.intro})
		if in[i] != t.intro {
			n := bytes.IndexByte(in[i:], t.intro)
			if n < 0 {
				n = len(in) - i
			}
			plain = append(plain, in[i:i+n]...)
			i += n
			continue
		}
		var used int
		if plain, used = t.unescape(plain, in[i:], final); used == 0 {
			t.plain, t.runs = plain, runs
			return // the rest of the escape is to come
		}
		i += used
	}
	t.plain, t.runs = plain, append(runs, run{len(plain), len(in), false})
}
