package secret

import (
	"bytes"
	"errors"
	"testing"
)

func TestMask(t *testing.T) {
	st := newStore(t)
	const value = "s3cretvalue-0001 of some length"
	v := load(t, st, value)
	key := [4]byte{0x11, 0, 0xfe, 0x37}
	for offset := range 9 {
		for split := range len(value) + 1 {
			rec := &recorder{}
			s := newStream(rec, st)
			m := register(t, s, Raw, Part{Value: v})
			if err := s.Mask(m, key, offset); err != nil {
				t.Fatal(err)
			}
			s.Write([]byte(m[:split]))
			s.Write([]byte(m[split:]))
			want := []byte(value)
			for i := range want {
				want[i] ^= key[(offset+i)%4]
			}
			if rec.String() != string(want) {
				t.Fatalf("offset %d, split at %d: wrote %x, want %x", offset, split, rec, want)
			}
			if bytes.Contains([]byte(rec.String()), []byte(value)) {
				t.Fatal("the value was not masked")
			}
		}
	}
}

func TestMaskLong(t *testing.T) {
	st := newStore(t)
	value := bytes.Repeat([]byte("abcdefg"), 9000) // over several slots
	v := load(t, st, string(value))
	rec := &recorder{}
	s := newStream(rec, st)
	m := register(t, s, Raw, Part{Value: v})
	if err := s.Mask(m, [4]byte{1, 2, 3, 4}, 3); err != nil {
		t.Fatal(err)
	}
	s.Write([]byte("x" + m + "y"))
	got := []byte(rec.String())
	for i := range value {
		got[1+i] ^= [4]byte{1, 2, 3, 4}[(i+3)%4]
	}
	if string(got) != "x"+string(value)+"y" {
		t.Error("a value over several slots is wrong")
	}
}

func TestMaskRefuses(t *testing.T) {
	st := newStore(t)
	v, binary := load(t, st, "s3cretvalue-0001"), load(t, st, "s3cret\xff\xfevalue")
	s := newStream(&recorder{}, st)
	spent := register(t, s, Raw, Part{Value: v})
	s.Write([]byte(spent))
	for name, m := range map[string]string{"spent": spent, "not a marker": "abcdefghijkl", "too short": "abc", "beginning": register(t, s, Raw, Part{Value: v})[:8]} {
		if s.Mask(m, [4]byte{1}, 0) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := s.Mask(register(t, s, Raw, Part{Value: binary}), [4]byte{1}, 0); !errors.Is(err, ErrNotText) {
		t.Errorf("a value that is no text: %v", err)
	}
	h2 := NewSeal(&recorder{}, true, st)
	if h2.Mask(register(t, h2, Raw, Part{Value: v}), [4]byte{1}, 0) == nil {
		t.Error("accepted on HTTP/2")
	}
}
