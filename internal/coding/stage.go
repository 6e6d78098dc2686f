package coding

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// A stage decodes one coding.
type stage struct {
	coding string
	d      *decoder
	src    *bufio.Reader
	dec    io.Reader // nil before the first byte is there
	done   func()    // releases dec; may be nil
	taken  int64     // of the budget
	n      int64     // bytes returned
}

// Read returns what is decoded as soon as there is some. The end of the coded
// stream is the end of the content only if nothing follows.
func (s *stage) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if s.dec == nil {
		if _, err := s.src.Peek(1); err != nil {
			return 0, err // empty, or the source's
		}
		if err := s.open(); err != nil {
			return 0, s.fault(err)
		}
	}
	n, err := s.dec.Read(p)
	s.n += int64(n)
	// In whole, not per stage, so that no stage is a bomb for the next one.
	if l := s.d.limits; s.n > l.Free && s.n/l.Ratio > s.d.in.n {
		return 0, ErrExpansion
	}
	switch {
	case n > 0:
		return n, nil // an error comes again
	case err == io.EOF:
		return 0, s.finish()
	case err != nil:
		return 0, s.fault(err)
	}
	return 0, nil
}

// finish returns io.EOF if the source has ended too.
func (s *stage) finish() error {
	_, err := s.src.Peek(1)
	if err == nil {
		return fmt.Errorf("%w: something follows the %s stream", ErrDamaged, s.coding)
	}
	return err
}

// fault tells the errors of a decoder from those of the source or a stage
// below, which come through it.
func (s *stage) fault(err error) error {
	if s.d.in.err != nil && s.d.in.err != io.EOF {
		return s.d.in.err
	}
	for _, own := range []error{ErrExpansion, ErrMemory, ErrDamaged} {
		if errors.Is(err, own) {
			return err
		}
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %s: %w", ErrDamaged, s.coding, err)
}

// take takes n bytes of the budget for the stage.
func (s *stage) take(n int64) error {
	if b := s.d.limits.Budget; b != nil {
		if !b.Take(n) {
			return ErrMemory
		}
		s.taken += n
	}
	return nil
}

func (s *stage) close() {
	if s.done != nil {
		s.done()
		s.done = nil
	}
	if s.taken > 0 {
		s.d.limits.Budget.Give(s.taken)
		s.taken = 0
	}
}
