package secret

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"log/slog"
)

// A Value is an opaque handle to a value in a [Store]. The zero Value is
// none. Values are comparable; two handles are equal if they stand for the
// same place, not for equal bytes.
type Value struct {
	store  *Store
	off, n int
	serial uint64 // of its block
}

const redacted = "[secret]"

// Len returns the value's length in bytes.
func (v Value) Len() int { return v.n }

// IsZero reports whether v stands for no value.
func (v Value) IsZero() bool { return v.store == nil }

// String returns "[secret]".
func (Value) String() string { return redacted }

// GoString returns "[secret]".
func (Value) GoString() string { return redacted }

// Format prints "[secret]" for every verb.
func (Value) Format(f fmt.State, _ rune) { f.Write([]byte(redacted)) }

// MarshalText returns "[secret]"; JSON uses it too.
func (Value) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue returns "[secret]".
func (Value) LogValue() slog.Value { return slog.StringValue(redacted) }

// bytes returns v's place in the region. The caller holds v.store.mu.
func (v Value) bytes() []byte {
	return v.store.mem.bytes[v.off : v.off+v.n : v.off+v.n]
}

// contains reports whether text is part of the value.
func (v Value) contains(text string) bool {
	if v.IsZero() {
		return false
	}
	v.store.mu.RLock()
	defer v.store.mu.RUnlock()
	return !v.store.closed && v.store.lookup(v) != nil && bytes.Contains(v.bytes(), []byte(text))
}

// Same reports whether v and o are equal bytes of one store.
func (v Value) Same(o Value) bool {
	if v.IsZero() || v.store != o.store {
		return false
	}
	v.store.mu.RLock()
	defer v.store.mu.RUnlock()
	return !v.store.closed && v.store.lookup(v) != nil && v.store.lookup(o) != nil && subtle.ConstantTimeCompare(v.bytes(), o.bytes()) == 1
}
