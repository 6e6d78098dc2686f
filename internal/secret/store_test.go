package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/match"
)

func newStore(t testing.TB) *Store {
	t.Helper()
	st, err := NewStore(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

func load(t testing.TB, st *Store, value string) Value {
	t.Helper()
	v, err := tryLoad(t, st, value, len(value))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func tryLoad(t testing.TB, st *Store, value string, n int) (Value, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		io.WriteString(w, value)
		w.Close()
	}()
	fd := int(r.Fd())
	return st.ReadValue(fd, n)
}

// reveal returns a copy of what a value is.
func reveal(v Value) string {
	v.store.mu.RLock()
	defer v.store.mu.RUnlock()
	return string(v.bytes())
}

func TestReadValue(t *testing.T) {
	tests := []struct {
		name, value string
		n           int
		want        string // in the error
	}{
		{"shortest", "1", 1, ""},
		{"longest", strings.Repeat("x", MaxValue), MaxValue, ""},
		{"non-ASCII and quotes", "pä\"ss' & # %", 13, ""},
		{"only what was asked for", "0123456789abcdef", 10, ""},
		{"empty", "", 0, "empty"},
		{"negative", "", -1, "empty"},
		{"too long", "", MaxValue + 1, "longer"},
		{"CR", "1234\r5678", 9, "CR, LF or NUL"},
		{"LF", "12345678\n", 9, "CR, LF or NUL"},
		{"NUL", "\x0012345678", 9, "CR, LF or NUL"},
		{"cut short", "12345678", 9, "unexpected end"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st := newStore(t)
			v, err := tryLoad(t, st, tt.value, tt.n)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want %q", err, tt.want)
				}
				if len(st.blocks) != 0 || bytes.ContainsAny(st.mem.bytes, "12345678") {
					t.Error("a refused value stays in the region")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if reveal(v) != tt.value[:tt.n] || v.Len() != tt.n || v.IsZero() {
				t.Errorf("read %d bytes, want %d, or other ones", v.Len(), tt.n)
			}
		})
	}
}

func TestReleaseZeroes(t *testing.T) {
	st := newStore(t)
	a, b := load(t, st, "first-value-AAAA"), load(t, st, "second-value-BBBB")
	st.Release(a)
	if bytes.Contains(st.mem.bytes, []byte("first-value")) {
		t.Error("released value is still in the region")
	}
	if reveal(b) != "second-value-BBBB" {
		t.Error("another value was changed")
	}
	st.Release(a) // twice is harmless
	c := load(t, st, "third-value-CCCC")
	if c.off != a.off {
		t.Fatalf("place was not used again: %d, %d", a.off, c.off)
	}
	// The stale handle must neither open nor release what stands there now.
	st.Release(a)
	if reveal(c) != "third-value-CCCC" {
		t.Error("a stale handle released another value")
	}
	if _, _, err := st.encode([]Part{{Value: a}}, Raw); err == nil {
		t.Error("a stale handle opens another value, raw")
	}
	if _, _, err := st.encode([]Part{{Text: "u:"}, {Value: a}}, Base64); err == nil {
		t.Error("a stale handle opens another value, Base64")
	}
}

func TestClose(t *testing.T) {
	st := newStore(t)
	gone := load(t, st, strings.Repeat("x", slotSize))
	v := load(t, st, "value-to-be-gone")
	st.Release(gone)
	region, err := st.pin() // a write under way
	if err != nil {
		t.Fatal(err)
	}
	st.Close()
	if len(bytes.Trim(region, "\x00")) != 0 {
		t.Error("the region holds something after Close")
	}
	st.unpin()
	if st.mem.bytes != nil {
		t.Error("the region is still mapped")
	}
	if _, _, err := st.encode([]Part{{Value: v}}, Raw); !errors.Is(err, ErrClosed) {
		t.Errorf("encode after Close: %v", err)
	}
	if _, err := tryLoad(t, st, "another value", 13); !errors.Is(err, ErrClosed) {
		t.Errorf("ReadValue after Close: %v", err)
	}
	if _, err := NewNeedles([]*Secret{{Value: v}}); !errors.Is(err, ErrClosed) {
		t.Errorf("NewNeedles after Close: %v", err)
	}
}

func TestStoreFull(t *testing.T) {
	st, err := NewStore(1)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	big := strings.Repeat("x", slotSize)
	v := load(t, st, big)
	if _, err := tryLoad(t, st, "12345678", 8); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("full store: %v", err)
	}
	st.Release(v)
	load(t, st, big)
}

func TestNeedlesAreGarbage(t *testing.T) {
	st := newStore(t)
	s := newSecret(t, st, "A", "$MSB_AAAA", "s3cretvalue-0001")
	if _, err := NewNeedles([]*Secret{s}); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		runtime.GC()
		st.mu.RLock()
		n := len(st.blocks)
		st.mu.RUnlock()
		if n == 1 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("tables of dropped needles stay in the store")
}

func TestNothingPrintsAValue(t *testing.T) {
	st := newStore(t)
	s := newSecret(t, st, "A", "$MSB_AAAA", "s3cretvalue-0001")
	needles, err := NewNeedles([]*Secret{s})
	if err != nil {
		t.Fatal(err)
	}
	v := s.Value
	seal := NewSeal(nil, true, st)
	for _, x := range []any{
		v, &v, s, *s,
		[]Value{v},
		map[string]Value{"v": v},
		st, needles, needles.Form(0),
		Part{Value: v},
		seal,
		struct{ v Value }{v},
		struct{ n *Needles }{needles},
		struct{ n Needles }{*needles},
		struct{ m *match.Matcher }{needles.matcher},
		struct{ s *Store }{st},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%c", "%p"} {
			checkPrinted(t, verb, fmt.Sprintf(verb, x))
		}
		b, _ := json.Marshal(x)
		checkPrinted(t, "JSON", string(b))
		var log strings.Builder
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "x", x)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "x", x)
		checkPrinted(t, "slog", log.String())
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%c"} {
		if got := fmt.Sprintf(verb, v); got != "[secret]" {
			t.Errorf("%s prints %q", verb, got)
		}
	}
	if b, _ := json.Marshal(v); string(b) != `"[secret]"` {
		t.Errorf("JSON is %s", b)
	}
}

// checkPrinted looks for the value as text, in hex and as a list of numbers.
func checkPrinted(t *testing.T, how, out string) {
	t.Helper()
	for _, form := range []string{"s3cretvalue", "7333637265", "115 51 99", "0x73, 0x33"} {
		if strings.Contains(strings.ToLower(out), form) {
			t.Errorf("%s prints the value: %.200q", how, out)
		}
	}
}
