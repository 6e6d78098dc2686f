// Package source says what a source of values is; each of its
// subpackages is one. Sources run in the source helper (package helper)
// alone.
//
// A source promises that no error of its holds a value or a part of one.
package source

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cutoutdev/cutout/internal/secret"
)

// A Source reads values from one kind of place. Read may be called from
// several goroutines at once.
type Source interface {
	// Read returns the value that ref stands for; the caller closes it.
	// It gives up when ctx ends. Its error may be an [*Error].
	Read(ctx context.Context, ref string) (Value, error)
}

// A Value is what a source has read. Its bytes lie outside the Go heap as
// far as the source can have them there.
type Value struct {
	Data    *Buffer
	Expires time.Time // zero = nobody knows
	Warning string    // what the user should know about the place
}

// An Error is an error with advice.
type Error struct {
	Text  string
	Hint  string
	Cause error // may be nil
}

func (e *Error) Error() string { return e.Text }

func (e *Error) Unwrap() error { return e.Cause }

// Errorf returns an error with a hint; %w works as in [fmt.Errorf].
func Errorf(hint, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Text: err.Error(), Hint: hint, Cause: errors.Unwrap(err)}
}

// Limit is how much a source reads: a value and a line end.
const Limit = secret.MaxValue + 2

// ErrTooLong is why a source refuses what it reads.
var ErrTooLong = &Error{
	Text: fmt.Sprintf("the value is longer than %d bytes", secret.MaxValue),
	Hint: "name what holds the credential and nothing else",
}
