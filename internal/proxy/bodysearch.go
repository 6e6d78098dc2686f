package proxy

import (
	"errors"
	"io"

	"github.com/cutoutdev/cutout/internal/coding"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/rewrite"
	"github.com/cutoutdev/cutout/internal/secret"
)

// rewritten returns src with what seal makes in the place of placeholders, of
// which note is told.
func (b *body) rewritten(src io.Reader, seal func([]secret.Part, secret.Encoding) (string, error), note func(*secret.Secret) error) io.Reader {
	return b.q.rules.finder.Body(src, rewrite.Body{
		ContentType: b.contentType(),
		Swap:        b.plan.admits,
		Seal:        seal,
		Found: func(o rewrite.Occurrence, swapped bool) error {
			if swapped {
				return note(o.Secret)
			}
			return b.found(o.Secret)
		},
		SameLength: grpcOf(b.q.in.Header) != noGRPC, // its messages are behind their length
	})
}

// contentType is what the guest says that its body is; nothing if it says two
// things.
func (b *body) contentType() string {
	if list := b.q.in.Header["Content-Type"]; len(list) == 1 {
		return list[0]
	}
	return ""
}

// searched returns src unchanged but searched. What is coded is searched
// decoded if what is found may refuse it.
func (b *body) searched(src io.Reader) (io.Reader, error) {
	if !b.plan.blocks && len(b.plan.swap) == 0 {
		found := func(s *secret.Secret) { b.carried(s, "body") }
		return b.q.rules.finder.Reader(src, found), nil
	}
	r := b.scanned(src)
	if len(b.plan.coded) > 0 {
		var err error
		if r, err = b.scannedDecoded(src); err != nil {
			return nil, err
		}
	}
	if b.q.in.ContentLength < 0 {
		return r, nil
	}
	return &whole{r: r, left: b.q.in.ContentLength}, nil
}

// scannedDecoded gives src to the decoders as it passes.
func (b *body) scannedDecoded(src io.Reader) (io.Reader, error) {
	in, out := io.Pipe()
	plain, err := coding.NewReader(in, b.plan.coded, b.limits())
	if err != nil {
		return nil, err
	}
	r := b.scanned(plain)
	t := &tee{r: src, w: out, done: make(chan error, 1)}
	go func() {
		defer plain.Close()
		_, err := io.Copy(io.Discard, r)
		t.done <- err
		in.CloseWithError(err)
	}()
	b.release = append(b.release, func() { out.CloseWithError(io.ErrClosedPipe) })
	return t, nil
}

// scanned is rewritten without a change: an eligible placeholder refuses.
func (b *body) scanned(src io.Reader) io.Reader {
	return b.q.rules.finder.Body(src, rewrite.Body{
		ContentType: b.contentType(),
		Swap:        b.plan.admits,
		Found: func(o rewrite.Occurrence, swapped bool) error {
			if swapped {
				return b.refuse(o.Secret, b.plan.never)
			}
			return b.found(o.Secret)
		},
	})
}

// decoded returns the content of a coded body.
func (b *body) decoded(r io.Reader) (io.Reader, error) {
	d, err := coding.NewReader(r, b.plan.coded, b.limits())
	if err != nil {
		return nil, err
	}
	b.release = append(b.release, func() { d.Close() })
	return d, nil
}

// A whole is a body of known length. Its last bytes, which end the message,
// are given out only when nothing was found after them.
type whole struct {
	r    io.Reader
	left int64
}

func (w *whole) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.left -= int64(n)
	for w.left <= 0 && err == nil {
		var more [1]byte
		var m int
		if m, err = w.r.Read(more[:]); m > 0 {
			return 0, io.ErrUnexpectedEOF // not reached: its server ends it
		}
	}
	if err != nil && err != io.EOF {
		n = 0
	}
	return n, err
}

func (b *body) limits() coding.Limits { return coding.Limits{Budget: &b.q.held} }

// A tee gives what is read to another reader too, and ends well only if that
// one did.
type tee struct {
	r    io.Reader
	w    *io.PipeWriter
	done chan error
	err  error
}

func (t *tee) Read(p []byte) (int, error) {
	if t.err != nil {
		return 0, t.err
	}
	n, err := t.r.Read(p)
	if n > 0 {
		if _, found := t.w.Write(p[:n]); found != nil {
			t.err = found
			return 0, found
		}
	}
	t.err = err
	if err == io.EOF {
		t.w.Close()
		if found := <-t.done; found != nil {
			t.err = found
			return 0, found
		}
	}
	return n, err
}

// codingRefusal is the refusal that an error of the rewriter or the decoders
// stands for, or nil.
func codingRefusal(err error) *refusal {
	if found := new(rewrite.Refusal); errors.As(err, &found) {
		r := refused(policy.Reason(found.Reason))
		r.secret, r.surface = found.Secret, "body"
		return r
	}
	var no *refusal
	switch {
	case errors.Is(err, coding.ErrUnknown):
		no = refused(policy.UnknownCoding)
	case errors.Is(err, coding.ErrExpansion):
		no = refused(policy.BodyTooLarge)
	case errors.Is(err, coding.ErrDamaged):
		no = refused(policy.MalformedRequest)
	case errors.Is(err, coding.ErrMemory):
		no = refused(policy.LimitReached)
	default:
		return nil
	}
	no.detail = err.Error()
	return no
}
