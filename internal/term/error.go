package term

import (
	"errors"
	"fmt"
	"strings"
)

// hinted is an error that also knows what the user can do about it.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }
func (h hinted) Hint() string  { return h.hint }

// WithHint returns err with a hint for the user; nil stays nil.
func WithHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return hinted{err, fmt.Sprintf(format, args...)}
}

// Error prints err the way every command of Cutout does: "cutout: what
// failed", a line for each of joined errors, and "hint: what to do" if some
// error in its chain has a Hint() string method.
func (o *Output) Error(err error) {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		o.Printf("cutout: %s", Escape(line))
	}
	var h interface{ Hint() string }
	if errors.As(err, &h) && h.Hint() != "" {
		o.Printf("hint: %s", Escape(h.Hint()))
	}
}
