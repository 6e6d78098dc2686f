// Package sourcetest is the contract of a source as a test that every
// source passes.
package sourcetest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/source"
)

// A Place is where a source of a test reads.
type Place struct {
	Source source.Source
	Put    func(t *testing.T, value string) (ref string) // stores a value there
	Absent string                                        // a reference to nothing
	Broken []string                                      // references that make no sense
}

// Test tests a source; place makes one of its own for each part.
func Test(t *testing.T, place func(t *testing.T) Place) {
	for name, value := range map[string]string{
		"a usual one":     "sk-live-0123456789abcdef",
		"spaces":          "  pass phrase\twith spaces ",
		"punctuation":     `a"b'c&d#e f%g<h>i\j/k+l=m;n,o$p` + "`q`{r}[s]",
		"not only ASCII":  "p\u00e4ss \U0001f511 w\u00f6rd",
		"the longest one": strings.Repeat("0123456789abcdef", secret.MaxValue/16),
	} {
		t.Run(name, func(t *testing.T) { roundTrip(t, place(t), value) })
	}
	t.Run("too long", func(t *testing.T) {
		p := place(t)
		value := strings.Repeat("sk-live-", secret.MaxValue/8+1)
		v, err := p.Source.Read(t.Context(), p.Put(t, value))
		if err == nil && len(v.Data.Bytes()) <= secret.MaxValue { // a bit more is for others to refuse
			t.Errorf("%d bytes of %d were taken for the value", len(v.Data.Bytes()), len(value))
		}
		v.Data.Close()
		notRepeated(t, err, "sk-live")
	})
	t.Run("absent", func(t *testing.T) {
		p := place(t)
		p.Put(t, "the-value-of-another")
		for _, ref := range append(p.Broken, p.Absent) {
			v, err := p.Source.Read(t.Context(), ref)
			if err == nil {
				t.Errorf("%q has a value of %d bytes", ref, len(v.Data.Bytes()))
			} else if e, ok := errors.AsType[*source.Error](err); ok && (e.Text == "" || strings.HasPrefix(e.Hint, "hint")) {
				t.Errorf("%q: %#v", ref, e)
			}
			notRepeated(t, err, "the-value-of-another")
		}
	})
	t.Run("given up", func(t *testing.T) {
		p := place(t)
		ref := p.Put(t, "sk-live-0123456789abcdef")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		done := make(chan error, 1)
		go func() {
			v, err := p.Source.Read(ctx, ref)
			v.Data.Close()
			done <- err
		}()
		select {
		case err := <-done: // a value that was there at once is no mistake
			notRepeated(t, err, "sk-live")
		case <-time.After(time.Minute):
			t.Error("it waits for what nobody wants any more")
		}
	})
}

// roundTrip reads a value twice: each reader has its own.
func roundTrip(t *testing.T, p Place, value string) {
	ref := p.Put(t, value)
	first, err := p.Source.Read(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	second, err := p.Source.Read(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	first.Data.Close()
	if first.Data.Bytes() != nil {
		t.Error("a value is there after it was closed")
	}
	defer second.Data.Close()
	if got := string(second.Data.Bytes()); got != value {
		t.Errorf("got %.40q (%d bytes), want %.40q (%d)", got, len(got), value, len(value))
	}
}

func notRepeated(t *testing.T, err error, value string) {
	t.Helper()
	if e, ok := errors.AsType[*source.Error](err); ok && strings.Contains(e.Hint, value) || err != nil && strings.Contains(err.Error(), value) {
		t.Errorf("the error repeats the value: %v", err)
	}
}
