// Package env reads values from environment variables.
package env

import (
	"context"

	"github.com/cutoutdev/cutout/internal/source"
)

// A Source takes values out of an environment. The zero Source has none.
type Source struct {
	Lookup func(name string) (string, bool) // as os.LookupEnv
}

// Read returns the variable ref.
func (s *Source) Read(_ context.Context, ref string) (source.Value, error) {
	text, ok := "", false
	if s.Lookup != nil {
		text, ok = s.Lookup(ref)
	}
	if !ok {
		return source.Value{}, source.Errorf("", "the variable is not set")
	}
	b, err := source.Hold([]byte(text))
	return source.Value{Data: b}, err
}
