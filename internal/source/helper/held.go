package helper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/source"
	"github.com/cutoutdev/cutout/internal/source/env"
)

// A Request asks for the value of one secret.
type Request struct {
	Name   string `json:"name"`
	Scheme string `json:"scheme"`
	Ref    string `json:"ref"`
}

// A Result is what can be said of a value without saying it.
type Result struct {
	Len       int       `json:"len"`
	LineBreak bool      `json:"line_break,omitempty"` // it holds CR, LF or NUL
	Expires   time.Time `json:"expires,omitzero"`
	Warning   string    `json:"warning,omitempty"`
	Failed    string    `json:"failed,omitempty"` // why there is none
	Hint      string    `json:"hint,omitempty"`
}

// Held are values that were read, searched where they lie. Its methods are
// for one goroutine.
type Held struct {
	Sources map[string]source.Source // by scheme

	values   []source.Named
	requests []Request // that they are from
}

// FromEnv returns a Held that reads environment variables only, in this
// process: for commands that need no value but look for those that are
// there.
func FromEnv(lookup func(string) (string, bool)) *Held {
	return &Held{Sources: map[string]source.Source{"env": &env.Source{Lookup: lookup}}}
}

// Read reads and holds every value that it can, one after the other: two
// commands that ask for a passphrase at once would confuse.
func (h *Held) Read(ctx context.Context, requests []Request) ([]Result, error) {
	results := make([]Result, len(requests))
	for i, r := range requests {
		results[i] = h.read(ctx, r)
	}
	return results, ctx.Err()
}

func (h *Held) read(ctx context.Context, r Request) Result {
	from := h.Sources[r.Scheme]
	if from == nil {
		return Result{Failed: fmt.Sprintf("there is no source %s", r.Scheme)}
	}
	v, err := from.Read(ctx, r.Ref)
	if err != nil {
		failed := Result{Failed: err.Error()}
		if e, ok := errors.AsType[*source.Error](err); ok {
			failed.Hint = e.Hint
		}
		return failed
	}
	h.values = append(h.values, source.Named{Name: r.Name, Value: v})
	h.requests = append(h.requests, r)
	data := v.Data.Bytes()
	return Result{Len: len(data), LineBreak: bytes.ContainsAny(data, "\r\n\x00"), Expires: v.Expires, Warning: v.Warning}
}

// Check refuses texts that hold one of the values. Values under
// [secret.MinValue] are left out: they stand anywhere by chance.
func (h *Held) Check(_ context.Context, texts []Text) error {
	for _, v := range h.values {
		if data := v.Data.Bytes(); len(data) >= secret.MinValue {
			if err := checkTexts(v.Name, data, texts); err != nil {
				return err
			}
		}
	}
	return nil
}

// expiring lists what was read of values that expire.
func (h *Held) expiring() []Request {
	var out []Request
	for i, v := range h.values {
		if !v.Expires.IsZero() {
			out = append(out, h.requests[i])
		}
	}
	return out
}

// Close zeroes the values.
func (h *Held) Close() {
	for _, v := range h.values {
		v.Data.Close()
	}
	h.values, h.requests = nil, nil
}
